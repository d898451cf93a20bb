"""What a store promises, whichever it is: where every sequence stands, changed one step at a time.

`log.Log` is the store of one process, `postgres.Postgres` that of many. Who uses one need not know
which it is.

Every change is atomic, is made once or not at all, and is durable when `Store.commit` has returned
for it. A change names the positions that it may be made from: that is the floor at 0, that is
``If-Match``, and that is how far the terms are at hand.
"""

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from gmpy2 import mpz

WAIT_SECONDS: Final = 2.6
"""How long a change of a shared store waits while others hold its sequence locked: about as long as
a request may take, 3 s."""

LOCKED: Final = -1
"""What `SharedStore.step_all` returns in place of a position that others hold locked."""


class StoreError(Exception):
    """A store in a database cannot be had; the message says why and what to do."""


class TablesMissing(StoreError):
    """The database has no tables of bigfib."""

    def __init__(self) -> None:
        super().__init__("the database has no tables of bigfib")


class Missing(LookupError):
    """The store has no sequence of this id; nothing has changed."""


class Present(Exception):
    """The store has a sequence of this id already; nothing has changed."""


class Elsewhere(Exception):
    """The sequence is not where the change may be made from; nothing has changed.

    Attributes:
        position: Where it is.
    """

    def __init__(self, position: int) -> None:
        super().__init__(f"the sequence is at position {mpz(position).digits()}")
        self.position = position


class NoRoom(Exception):
    """The change could not be kept, for there is no room; nothing has changed."""


class Unavailable(Exception):
    """The store cannot be asked now, which mends itself; nothing has changed."""


class SequenceLocked(Unavailable):
    """Others have held this sequence locked for as long as a request may take.

    Nothing has changed, so that it is safe to try again.
    """

    def __init__(self) -> None:
        super().__init__("nothing has changed: the sequence is locked in the store; try again")


class OutcomeUnknown(Exception):
    """The store was lost while a change was under way, which it may have made or not.

    It is never tried again by itself: that could make it twice.
    """


OnCommit = Callable[[float | None, int], None]
"""Called by a store after a commit, with its seconds and the number of changes it made durable.

The seconds are None where changes became durable by other means than a commit, or where their
number is reported after it.
"""


def ignore_commit(_seconds: float | None, _changes: int) -> None:
    """Be the `OnCommit` of a store whose commits nobody counts."""


class LogFacts(NamedTuple):
    """What there is to count of a state log.

    Attributes:
        size: Its bytes.
        records: Its records.
        rewrites: How often it has been rewritten.
    """

    size: int
    records: int
    rewrites: int


class Steps(NamedTuple):
    """Steps of one sequence that are made together, or not at all.

    Attributes:
        sequence_id: Which sequence.
        by: How far they lead in all.
        lowest: The lowest position that they may be made from.
        highest: The highest.
    """

    sequence_id: bytes
    by: int
    lowest: int
    highest: int


class Store(Protocol):
    """Where the position of every sequence is kept.

    All methods raise `Unavailable`; those that change something raise `NoRoom`, `OutcomeUnknown`
    and `SequenceLocked`, too.

    Attributes:
        end: The log sequence number (lsn) of the last change.
        committed: The lsn up to which changes are durable.
        on_commit: Called after every commit.
    """

    end: int
    committed: int
    on_commit: OnCommit

    def find(self, sequence_id: bytes) -> int | None:
        """Return where the sequence is, or None if there is none of this id."""

    def step(self, sequence_id: bytes, by: int, lowest: int, highest: int) -> int:
        """Move the sequence by so many terms, forward or back, and return its position.

        Raises:
            Missing: there is none.
            Elsewhere: it is not in ``lowest`` .. ``highest``.
        """

    def put(self, sequence_id: bytes, position: int, expected: int | None = None) -> None:
        """Put the sequence at ``position``.

        Args:
            sequence_id: Which sequence.
            position: Where to.
            expected: The only position to do so from; None for any.

        Raises:
            Missing: there is none.
            Elsewhere: it is not where expected.
        """

    def create(self, sequence_id: bytes, position: int) -> None:
        """Create the sequence at ``position``.

        Raises:
            Present: there is one of this id.
        """

    def delete(self, sequence_id: bytes, expected: int | None = None) -> None:
        """Delete the sequence; arguments and errors as `put`."""

    def holds(self, count: int) -> bool:
        """Return whether there are ``count`` sequences at least, not counting the permanent one.

        A shared store may be somewhat behind with its count.
        """

    def commit(self, lsn: int) -> None:
        """Return when all changes up to ``lsn`` are durable."""

    def is_lost(self) -> bool:
        """Return whether the store is known to be out of reach, without asking it."""

    def check(self) -> None:
        """Return if the store can take changes now."""

    def log_facts(self) -> LogFacts | None:
        """Return the facts of the store's log, or None if it has none."""

    def close(self) -> None:
        """Commit what is left, and let go of the store."""


class SharedStore(Store, Protocol):
    """A store that many servers share, and that is asked for many steps at once."""

    def may_step(self, sequence_id: bytes) -> bool:
        """Return whether the sequence can be stepped, as far as is known without asking."""

    def step_all(self, steps: Sequence[Steps], looks: Sequence[bytes] = ()) -> list[int | None]:
        """Step many sequences, and look at others, in one transaction.

        This hardly waits for sequences that others hold locked: those that are free are stepped.

        Args:
            steps: The steps, of a sequence each.
            looks: Sequences that are only looked at.

        Returns:
            The position of each, after its steps; `LOCKED` if others hold it; None where there is
            none, or it was not where the steps may be made from. `step` says which.
        """

    def give_up_locked(self, sequence_id: bytes) -> None:
        """Note that others have held the sequence locked for `WAIT_SECONDS`, and still do."""
