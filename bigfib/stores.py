"""Open the store that the settings name: a state log, or a database that servers share."""

from typing import NamedTuple

from bigfib.sequences import SHARED
from bigfib.settings import Settings
from bigfib.state import log
from bigfib.state.store import Store


class Opened(NamedTuple):
    """An open store.

    Attributes:
        name: The store as messages name it.
        durability: What an acknowledged step survives, as messages state it.
    """

    store: Store
    name: str
    durability: str


def open_store(settings: Settings, owner_url: str = "", *, expire: bool = True) -> Opened:
    """Open the state log or connect to the database.

    Args:
        settings: The settings of the store.
        owner_url: The URL of this service, shown to processes that find the state log locked.
        expire: Whether sequences may expire. Only the service expires them: a command may run
            under other settings, or another clock.

    Raises:
        StoreError: The database cannot be used, or its driver is not installed.
        LogError: As `log.Log`.
    """
    if not settings.store:
        opened = open_log(settings, owner_url, expire=expire)
        return Opened(opened, f"state log {settings.file}", settings.durability.value)
    from bigfib.state.postgres.store import Postgres

    days_kept = settings.sequence_ttl if expire else None
    store = Postgres(settings.store, days_kept=days_kept, permanent=SHARED)
    standby = "a" if store.has_standby else "no"
    durability = f"synchronous_commit {store.synchronous_commit} with {standby} synchronous standby"
    return Opened(store, f"store {store.host}", durability)


def open_log(settings: Settings, owner_url: str = "", *, expire: bool = True) -> log.Log:
    """Open the state log that the settings name; arguments and errors as `open_store`."""
    return log.Log(
        settings.file,
        log.Durability(settings.durability.value),
        owner_url=owner_url,
        rewrite_bytes=settings.rewrite_bytes,
        days_kept=settings.sequence_ttl if expire else None,
        permanent=SHARED,
    )
