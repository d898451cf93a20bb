"""Open a socket, build the application, run it on bjoern, drain it."""


class CannotServe(Exception):
    """The service cannot start; the message says why and what to do."""
