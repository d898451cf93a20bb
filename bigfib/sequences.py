"""Named positions in the Fibonacci sequence and their current terms.

A sequence is known by its id and stands at a position, 0 until it is first stepped. The state log
keeps the position; the term at it is a function of the position and lives in memory only, as long
as there is room for it.
"""

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from gmpy2 import mpz

from bigfib.numbers.decimals import DecimalPair, StartOfSequence
from bigfib.numbers.fibonacci import MAX_INDEX, IndexTooLarge, InvalidIndex, parse_index
from bigfib.settings import CACHE_BYTES, MAX_SEQUENCES, Settings
from bigfib.state.log import Log

SHARED: Final = b"shared"
"""The id of the sequence that all clients share."""

_ID: Final = re.compile("[0-9a-f]{32}", re.ASCII)

# Measured: a sequence at a small position takes 710 bytes, and each number of a long pair its
# length.
_SEQUENCE_BYTES: Final = 800
_NUMBERS_HELD: Final = 6


class UnknownSequence(LookupError):
    """There is no sequence of this id: it was never created, was deleted, or is long forgotten."""


class TooManySequences(Exception):
    """There is no room for one more; the message names the limit."""


def parse_id(text: str) -> bytes:
    """Return the id that ``text`` writes: ``shared``, or 32 hexadecimal digits in lower case.

    Raises:
        UnknownSequence: it is no id.
    """
    if text == SHARED.decode():
        return SHARED
    if not _ID.fullmatch(text):
        raise UnknownSequence("an id has 32 hexadecimal digits in lower case")
    return bytes.fromhex(text)


def format_id(sequence_id: bytes) -> str:
    """Return the text that `parse_id` reads as ``sequence_id``."""
    return SHARED.decode() if sequence_id == SHARED else sequence_id.hex()


def require_steps(steps: mpz) -> mpz:
    """Return ``steps``, if it is a number of steps.

    Raises:
        InvalidIndex: it is less than 1.
    """
    if steps < 1:
        raise InvalidIndex("by is the number of steps, at least 1; next and previous are the ways")
    return steps


def parse_position(text: str) -> mpz:
    """Return the position that ``text`` writes.

    Raises:
        InvalidIndex: it is not a whole number of at least 0.
        IndexTooLarge: as `parse_index`.
    """
    position = parse_index(text)
    if position < 0:
        raise InvalidIndex("a sequence begins at position 0; there is none before it")
    return position


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
        length_counted: The length of the pair for which memory is counted.
    """

    __slots__ = ("id", "length_counted", "lsn", "pair")

    def __init__(self, sequence_id: bytes, pair: DecimalPair, lsn: int) -> None:
        self.id = sequence_id
        self.pair = pair
        self.lsn = lsn
        self.length_counted = 0


class Sequences:
    """All sequences of a state log.

    Attributes:
        cached_bytes: How much memory the terms of sequences take now, as far as it is counted.
        pair_at: What gives the terms at a position; its errors are raised by all that needs them,
            and then nothing has changed.
    """

    def __init__(
        self,
        log: Log,
        *,
        cache_bytes: int = CACHE_BYTES,
        max_sequences: int = MAX_SEQUENCES,
        farthest: int = MAX_INDEX - 1,
    ) -> None:
        """Take the sequences that are in ``log``.

        Args:
            log: Where positions are kept.
            cache_bytes: How much memory terms may take; those of the sequence used last are kept
                even if they need more.
            max_sequences: How many sequences there may be.
            farthest: The position that a sequence is moved to at once at most.
        """
        self.pair_at: Callable[[int], DecimalPair] = DecimalPair
        self._farthest = farthest
        self._log = log
        self._cache_bytes = cache_bytes
        self._max_sequences = max_sequences
        self._cached: OrderedDict[bytes, Sequence] = OrderedDict()
        self.cached_bytes = 0

    def current(self, sequence_id: bytes) -> Sequence:
        """Return the sequence as it stands; one that nobody has stepped is at 0."""
        sequence = self._cached.get(sequence_id)
        if sequence is None:
            return self._rebuild(sequence_id)
        self._cached.move_to_end(sequence_id)
        return sequence

    def existing(self, sequence_id: bytes) -> Sequence:
        """Return the sequence as it stands.

        Raises:
            UnknownSequence: it is neither the shared one nor in the log.
        """
        if sequence_id != SHARED and sequence_id not in self._log.latest:
            raise UnknownSequence("there is no such sequence")
        return self.current(sequence_id)

    def create(self) -> Sequence:
        """Create a sequence at 0, with 128 random bits as its id.

        Raises:
            TooManySequences: there are as many as there may be.
            AppendFailed, CommitFailed: as `Log.append`; nothing was created.
        """
        sequence_id = secrets.token_bytes(16)
        self._require_room_for(sequence_id)
        self._log.append(sequence_id, 0)
        return self.current(sequence_id)

    def forward(self, sequence_id: bytes) -> Sequence:
        """Step the sequence forward and return it.

        Raises:
            TooManySequences: it would be a new one, and there are as many as there may be.
            AppendFailed, CommitFailed: as `Log.append`; the sequence has not moved.
        """
        sequence = self.current(sequence_id)
        pair = sequence.pair
        if pair.position == 0:
            self._require_room_for(sequence_id)
        sequence.lsn = self._log.append(sequence_id, pair.position + 1)
        pair.forward()
        if pair.length != sequence.length_counted:
            self._count(sequence)
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
        if pair.length != sequence.length_counted:
            self._count(sequence)
        return sequence

    def step(self, sequence_id: bytes, by: int) -> Sequence:
        """Step the sequence by so many terms, forward or back, and return it.

        Raises:
            StartOfSequence: that leads to before 0; the sequence has not moved.
            IndexTooLarge: as `seek`, but for steps of one.
            TooManySequences, AppendFailed, CommitFailed: as `forward`.
        """
        if by == 1:
            return self.forward(sequence_id)
        if by == -1:
            return self.back(sequence_id)
        position = self.current(sequence_id).pair.position + by
        if position < 0:
            raise StartOfSequence("there is no term before F(0)")
        return self.seek(sequence_id, position)

    def seek(self, sequence_id: bytes, position: int) -> Sequence:
        """Put the sequence at ``position`` >= 0 and return it.

        Raises:
            IndexTooLarge: ``position`` is beyond the farthest.
            TooManySequences, AppendFailed, CommitFailed: as `forward`.
        """
        if position > self._farthest:
            raise IndexTooLarge(
                f"a sequence is moved to position {self._farthest} at most; steps of one go on "
                "from there"
            )
        self._require_room_for(sequence_id)
        sequence = self.current(sequence_id)
        pair = sequence.pair
        distance = position - pair.position
        # Measured: to compute a pair of 200, 20 thousand and 200 thousand digits takes as long as
        # 10, 107 and 315 steps to it.
        walks = distance * distance <= pair.length // 2
        if not walks:
            pair = self.pair_at(position)
        sequence.lsn = self._log.append(sequence_id, position)
        if walks:
            move = pair.forward if distance > 0 else pair.back
            for _ in range(abs(distance)):
                move()
        sequence.pair = pair
        self._count(sequence)
        return sequence

    def delete(self, sequence_id: bytes) -> int:
        """Delete the sequence, and return the lsn to commit.

        Raises:
            AppendFailed, CommitFailed: as `Log.append`; the sequence is still there.
        """
        lsn = self._log.append(sequence_id, None)
        sequence = self._cached.pop(sequence_id, None)
        if sequence:
            self._discount(sequence)
        return lsn

    def _require_room_for(self, sequence_id: bytes) -> None:
        latest = self._log.latest
        known = sequence_id == SHARED or sequence_id in latest
        # The shared one is always there, and does not count.
        if not known and len(latest) - (SHARED in latest) >= self._max_sequences:
            raise TooManySequences(
                f"the service keeps {self._max_sequences} sequences and has as many; delete one "
                "that is no longer needed"
            )

    def _rebuild(self, sequence_id: bytes) -> Sequence:
        # If its last step was appended and not yet committed, it is at or before the log's end.
        position, lsn = self._log.position(sequence_id), self._log.end
        sequence = Sequence(sequence_id, self.pair_at(position), lsn)
        self._cached[sequence_id] = sequence
        self.cached_bytes += _SEQUENCE_BYTES
        self._count(sequence)
        return sequence

    def _count(self, sequence: Sequence) -> None:
        """Count the memory of its terms anew, and make room if that is more than there is."""
        length = sequence.pair.length
        self.cached_bytes += _NUMBERS_HELD * (length - sequence.length_counted)
        sequence.length_counted = length
        while self.cached_bytes > self._cache_bytes and len(self._cached) > 1:
            self._discount(self._cached.popitem(last=False)[1])

    def _discount(self, sequence: Sequence) -> None:
        self.cached_bytes -= _SEQUENCE_BYTES + _NUMBERS_HELD * sequence.length_counted
