"""What every store of positions promises, and the errors that it raises.

`log.Log` is the store of one process, `postgres.store.Postgres` that of many servers. Callers of
`Store` need not know which one it is; what only the second can is in `SharedStore`.

A change is atomic, is made once or not at all, and is durable when `Store.commit` has returned for
it. It names the positions from which it may be made. This keeps positions at or above 0, implements
conditional changes, and limits steps to terms that are ready.
"""

import os
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from gmpy2 import mpz

WAIT_SECONDS: Final = 2.6
"""Timeout of a change of a locked sequence in a shared store: less than a request may take, 3 s."""

LOCKED: Final = -1
"""Returned by `SharedStore.step_all` in place of the position of a locked sequence."""


class StoreError(Exception):
    """A store in a database cannot be opened; the message says why and what to do."""


class TablesMissing(StoreError):
    """The database has no tables of bigfib."""

    def __init__(self) -> None:
        super().__init__("the database has no tables of bigfib")


class SequenceNotFound(LookupError):
    """The store has no sequence of this id; nothing has changed."""


class SequenceExists(Exception):
    """The store has a sequence of this id already; nothing has changed."""


class PositionMismatch(Exception):
    """The sequence is not where the change may be made from; nothing has changed.

    Attributes:
        position: Its position.
    """

    def __init__(self, position: int) -> None:
        super().__init__(f"the sequence is at position {mpz(position).digits()}")
        self.position = position


class Place(NamedTuple):
    """Where a sequence is, and which of its changes has led there.

    Attributes:
        position: Its position.
        version: Its version, as `Store.version` returns it; None for any.
    """

    position: int
    version: int | None = None


def require_place(expected: Place | None, found: Place) -> None:
    """Raise `PositionMismatch` if the place found is not the expected one; None allows any."""
    if expected is not None and expected not in (found, Place(found.position)):
        raise PositionMismatch(found.position)


class NoRoom(Exception):
    """There is no room to store the change; nothing has changed."""


class Unavailable(Exception):
    """The store is out of reach for now; nothing has changed, and a retry may succeed."""


class SequenceLocked(Unavailable):
    """The sequence has been locked by others for as long as a request may take.

    Nothing has changed, so it is safe to retry.
    """

    def __init__(self) -> None:
        super().__init__("nothing has changed: the sequence is locked in the store; try again")


class OutcomeUnknown(Exception):
    """The store was lost during a change, which may or may not have been made.

    The server never retries the change: that could make it twice.
    """


class CommitFailed(Exception):
    """Changes could not be made durable, or another program has changed the files of the store.

    This is final: every later change fails, too. The content of the disk is unknown; a second
    ``fdatasync`` may succeed although the first one lost the pages, so it is never retried. No
    reply may show a change that was not committed, so the process must end.
    """


def first_version() -> int:
    """Return the version at which a sequence begins.

    It is random, because nothing is kept of an earlier sequence of this id: the probability that
    the earlier one had the same version at the same position is then 4e-9.
    """
    return 1 + (int.from_bytes(os.urandom(4), "big") >> 4)


OnCommit = Callable[[float | None, int], None]
"""Called by a store after a commit, with its seconds and the number of changes it made durable.

The seconds are None where changes became durable by other means than a commit, or where their
number is reported after it.
"""


def ignore_commit(_seconds: float | None, _changes: int) -> None:
    """Do nothing: the `OnCommit` of a store whose commits are not counted."""


class LogFacts(NamedTuple):
    """The sizes and counts of a state log.

    Attributes:
        size: Its bytes.
        records: Its records.
        compactions: How often it has been compacted.
        checks: How often the whole of it has been read and found whole.
        faults: How often damage has been found in it.
    """

    size: int
    records: int
    compactions: int
    checks: int
    faults: int


class Steps(NamedTuple):
    """Steps of one sequence that are made together, or not at all.

    Attributes:
        sequence_id: The sequence.
        by: The sum of the steps.
        lowest: The lowest position from which they may be made.
        highest: The highest.
    """

    sequence_id: bytes
    by: int
    lowest: int
    highest: int


class Store(Protocol):
    """The positions of all sequences.

    All methods may raise `Unavailable`; those that change something may also raise `NoRoom`,
    `OutcomeUnknown` and `SequenceLocked`. These, `commit`, `tend`, `check` and `close` may raise
    `CommitFailed`.

    Attributes:
        on_commit: Called after every commit.
        shared: This same store if many servers share it, or else None.
    """

    on_commit: OnCommit
    shared: "SharedStore | None"

    def find(self, sequence_id: bytes) -> int | None:
        """Return the position of the sequence, or None if there is no such sequence."""

    def version(self, sequence_id: bytes) -> int | None:
        """Return the version of the sequence, 0 if there is none; None if versions are not kept.

        It grows with each change; that of a new sequence is `first_version`. If the last call was
        about this sequence, it is the version at the position that this call returned or set.
        """

    def step(
        self, sequence_id: bytes, by: int, lowest: int, highest: int, version: int | None = None
    ) -> int:
        """Move the sequence by ``by`` positions, forward or back, and return its position.

        Raises:
            SequenceNotFound: there is no such sequence.
            PositionMismatch: its position is not in ``lowest`` .. ``highest``, or its version is
                not ``version``; None allows any.
        """

    def put(self, sequence_id: bytes, position: int, expected: Place | None = None) -> None:
        """Move the sequence to ``position``.

        Args:
            sequence_id: The sequence.
            position: The new position.
            expected: The only place from which to move it; None for any.

        Raises:
            SequenceNotFound: there is no such sequence.
            PositionMismatch: it is not at the expected place.
        """

    def create(self, sequence_id: bytes, position: int) -> None:
        """Create the sequence at ``position``.

        Raises:
            SequenceExists: there is a sequence of this id.
        """

    def delete(self, sequence_id: bytes, expected: Place | None = None) -> None:
        """Delete the sequence; arguments and errors as `put`."""

    def holds(self, count: int) -> bool:
        """Return whether there are at least ``count`` sequences besides the permanent one.

        The count of a shared store may be out of date.
        """

    def commit(self) -> None:
        """Make all changes durable."""

    def tend(self, now: float) -> None:
        """Do a little upkeep that is due; called after `commit` if loop iterations are hooked.

        Args:
            now: The time in seconds, by a clock that is never set back.
        """

    def is_lost(self) -> bool:
        """Return whether the store is known to be out of reach, without a query."""

    def check(self) -> None:
        """Check that the store can take changes now; raise why if it cannot."""

    def log_facts(self) -> LogFacts | None:
        """Return the facts of the store's log, or None if it has none."""

    def close(self) -> None:
        """Commit what is left, and close the store."""


class SharedStore(Store, Protocol):
    """A store that many servers share, and that makes many steps at once."""

    @property
    def has_standby(self) -> bool:
        """Whether commits waited for a synchronous standby when this was last checked."""

    def is_open(self) -> bool:
        """Return whether the store can take steps, as far as is known without a query."""

    def step_all(self, steps: Sequence[Steps], looks: Sequence[bytes] = ()) -> list[int | None]:
        """Step many sequences, and look up others, in one transaction.

        A locked sequence does not delay the others.

        Args:
            steps: The steps, one item per sequence.
            looks: Sequences of which only the position is looked up.

        Returns:
            For each sequence its position after the steps; `LOCKED` if it is locked; None if there
            is no such sequence, or its position does not allow the steps. `step` raises the reason.
        """

    def give_up_locked(self) -> None:
        """Note that steps of a locked sequence have waited for `WAIT_SECONDS` in vain."""
