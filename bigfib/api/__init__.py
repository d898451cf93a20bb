"""The HTTP interface: Falcon resources over the domain objects."""
