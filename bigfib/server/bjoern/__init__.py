"""Reach into bjoern's memory, libev's and the connections; no other code does."""
