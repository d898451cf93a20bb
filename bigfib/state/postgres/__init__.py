"""Keep the positions in a PostgreSQL database that many servers share.

Raises:
    StoreError: The package psycopg, which is an extra of bigfib, cannot be imported.
"""

from bigfib.state.store import StoreError

try:
    import psycopg  # noqa: F401 - the modules of this package need it
except ImportError as error:
    raise StoreError(
        f"a store in a database needs psycopg: pip install 'bigfib[postgres]' ({error})"
    ) from error
