"""Named positions in the Fibonacci sequence and their current terms.

A sequence is known by its id and stands at a position, 0 until it is first stepped. The state log
keeps the position; the term at it is a function of the position and lives in memory only.
"""

from collections import OrderedDict
from typing import Final

from bigfib.numbers.decimals import DecimalPair, StartOfSequence
from bigfib.settings import Settings
from bigfib.state.log import Log

SHARED: Final = b"shared"
"""The id of the sequence that all clients share."""

MOST_LOADED: Final = 1000
"""How many sequences have their terms in memory; the others are computed again when asked for."""


def open_log(settings: Settings, contact: str = "") -> Log:
    """Open the state log of the sequences as ``settings`` have it; see `Log`."""
    return Log(
        settings.file,
        settings.durability,
        contact=contact,
        rewrite_bytes=settings.rewrite_bytes,
        days_kept=settings.sequence_ttl,
        permanent=SHARED,
    )


class Sequence:
    """One sequence where it stands.

    Attributes:
        id: Its name in the state log.
        pair: The term at its position, and the next.
        lsn: What to commit in the log before its position may be shown.
    """

    __slots__ = ("id", "lsn", "pair")

    def __init__(self, sequence_id: bytes, position: int, lsn: int) -> None:
        """Compute the terms at ``position``.

        Raises:
            IndexTooLarge: as `DecimalPair`.
        """
        self.id = sequence_id
        self.pair = DecimalPair(position)
        self.lsn = lsn


class Sequences:
    """All sequences of a state log."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._loaded: OrderedDict[bytes, Sequence] = OrderedDict()

    def current(self, sequence_id: bytes) -> Sequence:
        """Return the sequence as it stands."""
        sequence = self._loaded.get(sequence_id)
        if sequence is None:
            return self._load(sequence_id)
        self._loaded.move_to_end(sequence_id)
        return sequence

    def forward(self, sequence_id: bytes) -> Sequence:
        """Step the sequence forward and return it.

        Raises:
            AppendFailed, CommitFailed: as `Log.append`; the sequence has not moved.
        """
        sequence = self.current(sequence_id)
        pair = sequence.pair
        sequence.lsn = self._log.append(sequence_id, pair.position + 1)
        pair.forward()
        return sequence

    def back(self, sequence_id: bytes) -> Sequence:
        """Step the sequence back and return it.

        Raises:
            StartOfSequence: it stands at 0, and still does.
            AppendFailed, CommitFailed: as `Log.append`; the sequence has not moved.
        """
        sequence = self.current(sequence_id)
        pair = sequence.pair
        if pair.position == 0:
            raise StartOfSequence("there is no term before F(0)")
        sequence.lsn = self._log.append(sequence_id, pair.position - 1)
        pair.back()
        return sequence

    def _load(self, sequence_id: bytes) -> Sequence:
        # If its last step was appended and not yet committed, it is at or before the log's end.
        position, lsn = self._log.position(sequence_id), self._log.end
        sequence = self._loaded[sequence_id] = Sequence(sequence_id, position, lsn)
        if len(self._loaded) > MOST_LOADED:
            self._loaded.popitem(last=False)
        return sequence
