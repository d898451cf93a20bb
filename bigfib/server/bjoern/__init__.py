"""Reach into the internals of bjoern and libev, and into bjoern's connections."""
