"""The position of every sequence in memory, and the conditions of a change to one.

The half of a log that knows no files: it checks what a change requires, and a subclass appends it.
"""

from abc import ABC, abstractmethod

from bigfib.state.packed import POSITION_SHIFT
from bigfib.state.store import (
    Place,
    PositionMismatch,
    SequenceExists,
    SequenceNotFound,
    SharedStore,
    first_version,
    require_place,
)


class Positions(ABC):
    """Positions by sequence id.

    Attributes:
        latest: Position, version and day of each sequence, as `packed.pack` joins them. Read-only
            for callers.
        shared: None: no other server uses them.
    """

    latest: dict[bytes, int]
    shared: SharedStore | None = None

    def __init__(self, permanent: bytes) -> None:
        """Start without sequences.

        Args:
            permanent: The id of the sequence that never expires and does not count.
        """
        self.latest = {}
        self._permanent = permanent

    @abstractmethod
    def note(self, sequence_id: bytes, position: int | None, version: int = 0) -> None:
        """Record the position of the sequence, None to delete it, until the next commit.

        ``version`` is its version; without it, the next one.
        """

    def position(self, sequence_id: bytes) -> int:
        """Return the position of the sequence, 0 if it has never been stepped."""
        return self.latest.get(sequence_id, 0) >> POSITION_SHIFT

    @abstractmethod
    def version(self, sequence_id: bytes) -> int | None:
        """Return the version of the sequence; see `Store.version`."""

    def find(self, sequence_id: bytes) -> int | None:
        """Return the position of the sequence, or None if there is no such sequence."""
        packed = self.latest.get(sequence_id)
        return None if packed is None else packed >> POSITION_SHIFT

    def step(
        self, sequence_id: bytes, by: int, lowest: int, highest: int, version: int | None = None
    ) -> int:
        """Move the sequence by ``by`` positions; see `Store.step`.

        Raises:
            AppendFailed, CommitFailed: as `note`.
        """
        packed = self.latest.get(sequence_id)
        if packed is None:
            raise SequenceNotFound
        position = packed >> POSITION_SHIFT
        if not lowest <= position <= highest or (
            version is not None and version != self.version(sequence_id)
        ):
            raise PositionMismatch(position)
        position += by
        self.note(sequence_id, position)
        return position

    def put(self, sequence_id: bytes, position: int, expected: Place | None = None) -> None:
        """Move the sequence to ``position``; see `Store.put`.

        Raises:
            AppendFailed, CommitFailed: as `note`.
        """
        self._require(sequence_id, expected)
        self.note(sequence_id, position)

    def create(self, sequence_id: bytes, position: int) -> None:
        """Create the sequence at ``position``; see `Store.create`.

        Raises:
            AppendFailed, CommitFailed: as `note`.
        """
        if sequence_id in self.latest:
            raise SequenceExists
        # The permanent one is never deleted, and is stepped most: its versions stay short.
        version = 1 if sequence_id == self._permanent else first_version()
        self.note(sequence_id, position, version)

    def delete(self, sequence_id: bytes, expected: Place | None = None) -> None:
        """Delete the sequence; see `Store.delete`.

        Raises:
            AppendFailed, CommitFailed: as `note`.
        """
        self._require(sequence_id, expected)
        self.note(sequence_id, None)

    def holds(self, count: int) -> bool:
        """Return whether there are at least ``count`` sequences besides the permanent one."""
        return len(self.latest) - (self._permanent in self.latest) >= count

    def _require(self, sequence_id: bytes, expected: Place | None) -> None:
        position = self.find(sequence_id)
        if position is None:
            raise SequenceNotFound
        require_place(expected, Place(position, self.version(sequence_id)))
