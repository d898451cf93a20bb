"""Open a socket, build the application, run it on bjoern, drain it."""
