"""List the syncs of the service, and how tests can see that each is needed."""

import random
from collections.abc import Callable
from fnmatch import fnmatch
from typing import NamedTuple

from tests.power.episode import End

LATE = 40
"""How many calls a sync is delayed: so many that replies have left before it."""


class Sync(NamedTuple):
    """A sync of the service.

    Attributes:
        what: What it makes durable, as `tests.power.mount` names it.
        ends: The lives of the service that show that it is missing.
        number: Which sync of the file it is, from 0; None for all.
        rewrites: Whether the log is being rewritten.
        warm: Whether there is a log before the sync is left out.
    """

    what: str
    ends: Callable[[random.Random], list[End]]
    number: int | None = None
    rewrites: bool = False
    warm: bool = False


def soon_after(
    what: str, most: int = 3, then: int = LATE - 2
) -> Callable[[random.Random], list[End]]:
    """Return a life that ends a few calls after such a sync, one of the first; and another life."""

    def ends(chance: random.Random) -> list[End]:
        return [End(chance.randint(1, most), what, chance.randint(0, then)), End(1 << 30)]

    return ends


def killed_and_cut(_: random.Random) -> list[End]:
    """Return pairs of lives: one leaves something unsynced, and the next shows and loses it."""
    return [End(4, "state.log", loses=False), End(1, "state.log"), End(1 << 30)]


def named_and_cut(chance: random.Random) -> list[End]:
    """Return pairs of lives: one renames a new log without a commit, and the next reads it."""
    return [End(1, "state.log.new", chance.randint(1, 3)), End(15)]


SYNCS = {
    "of a commit": Sync("state.log", soon_after("state.log", 20)),
    "of what a killed service has left": Sync("state.log of an earlier process", killed_and_cut),
    "of a new log, before its name": Sync("state.log.new", named_and_cut, 0),
    "of the name of a new log": Sync("new state.log", soon_after("new state.log", 1)),
    "of a new directory": Sync("new lib", soon_after("new lib", 1)),
    "of a new directory above": Sync("new var", soon_after("new var", 1)),
    "of a rewritten log, all": Sync(
        "state.log.new", soon_after("other state.log", then=2), None, rewrites=True, warm=True
    ),
    "of a rewritten log, the last": Sync(
        "state.log.new", soon_after("other state.log", then=2), 1, rewrites=True, warm=True
    ),
    "of the name of a rewritten log": Sync(
        "other state.log", soon_after("other state.log"), rewrites=True, warm=True
    ),
}

# Patterns of other syncs, on which no reply depends. (Nor does any depend on the first sync of a
# compacted log, made in a thread, which only makes the last sync short.)
NOT_NEEDED = {
    "* state.log.lock": "a lock file says nothing after a crash",
    "* state.log.new": "what a rewriting has left is removed at the next start, too",
    "*state.log.floor": "an old floor is as true as a new one, and may be missing",
    "*state.log.torn.*": "what is torn was never acknowledged",
}


def is_listed(what: str) -> bool:
    """Return whether it is known if clients notice that this sync is missing."""
    return what in {sync.what for sync in SYNCS.values()} or any(
        fnmatch(what, pattern) for pattern in NOT_NEEDED
    )
