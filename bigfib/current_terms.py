"""The current terms of sequences, in memory as long as there is room.

Where servers share a store, another server may have stepped a sequence. Its terms in memory then
catch up with the position in the store: step by step, or computed again where that is cheaper.
"""

from collections import OrderedDict
from collections.abc import Callable
from math import isqrt
from typing import Final

from bigfib.metrics import Gauge
from bigfib.numbers.decimals import DecimalPair
from bigfib.terms import INLINE_LIMIT

# Measured: a sequence at a small position takes 710 bytes, and each number of a long pair takes the
# length of its terms.
_SEQUENCE_BYTES: Final = 800
_NUMBERS_HELD: Final = 6

# 1 / log10(phi): a term grows by one digit in so many indices.
_INDICES_A_DIGIT: Final = 4.784971966781666


class Sequence:
    """A sequence and its current terms.

    Attributes:
        id: Its id in the store.
        pair: The term at its position, and the next.
        length_counted: The length of the pair when its memory was last counted.
    """

    __slots__ = ("id", "length_counted", "pair")

    def __init__(self, sequence_id: bytes, pair: DecimalPair) -> None:
        self.id = sequence_id
        self.pair = pair
        self.length_counted = 0


class CurrentTerms:
    """The current terms of the sequences of a store, least recently used first out.

    Attributes:
        cached_bytes: The memory that they take, as far as it is counted.
        memory: The same, as a metric.
        pair_at: Returns the terms at a position. Beyond `INLINE_LIMIT` it may raise errors; the
            methods here pass them on, and then nothing has changed.
    """

    def __init__(self, cache_bytes: int) -> None:
        """Start without terms.

        Args:
            cache_bytes: The limit of memory. The terms used last are kept even if they need more.
        """
        self.pair_at: Callable[[int], DecimalPair] = DecimalPair
        self._cache_bytes = cache_bytes
        self._cached: OrderedDict[bytes, Sequence] = OrderedDict()
        self.cached_bytes = 0
        self.memory = Gauge()

    def at(self, sequence_id: bytes, position: int) -> Sequence:
        """Return the sequence with its terms at ``position``, which it has in the store."""
        sequence = self._cached.get(sequence_id)
        if sequence is None:
            return self._hold(sequence_id, self.pair_at(position))
        self._cached.move_to_end(sequence_id)
        if sequence.pair.position != position:
            self._catch_up(sequence, position)
        return sequence

    def last_seen(self, sequence_id: bytes) -> int | None:
        """Return the position of the sequence's cached terms, or None if none are cached."""
        sequence = self._cached.get(sequence_id)
        return None if sequence is None else sequence.pair.position

    def reach(self, sequence_id: bytes, least: int, most: int) -> tuple[int, int]:
        """Return the lowest and the highest position from which steps lead to terms that are ready.

        Args:
            sequence_id: The sequence.
            least: The distance to the lowest term that will be shown, negative if it is before.
            most: The distance to the highest.
        """
        sequence = self._cached.get(sequence_id)
        if sequence is None or sequence.pair.position + most <= INLINE_LIMIT:
            return max(0, -least), INLINE_LIMIT - most
        walkable = isqrt(sequence.pair.length // 2) - max(abs(least), abs(most))
        return sequence.pair.position - walkable, sequence.pair.position + walkable

    def forget(self, sequence_id: bytes) -> None:
        """Drop the cached terms of the sequence."""
        sequence = self._cached.pop(sequence_id, None)
        if sequence:
            self._discount(sequence)

    def _hold(self, sequence_id: bytes, pair: DecimalPair) -> Sequence:
        self.forget(sequence_id)
        sequence = self._cached[sequence_id] = Sequence(sequence_id, pair)
        self.cached_bytes += _SEQUENCE_BYTES
        self._count(sequence)
        return sequence

    def _catch_up(self, sequence: Sequence, position: int) -> None:
        pair = sequence.pair
        if walks(pair, position):
            move = pair.forward if position > pair.position else pair.back
            for _ in range(abs(position - pair.position)):
                move()
        else:
            sequence.pair = self.pair_at(position)
        self._count(sequence)

    def _count(self, sequence: Sequence) -> None:
        """Update the count of memory, and drop the least recently used terms beyond the limit."""
        length = sequence.pair.length
        self.cached_bytes += _NUMBERS_HELD * (length - sequence.length_counted)
        sequence.length_counted = length
        while self.cached_bytes > self._cache_bytes and len(self._cached) > 1:
            self._discount(self._cached.popitem(last=False)[1])
        self.memory.set(self.cached_bytes)

    def _discount(self, sequence: Sequence) -> None:
        self.cached_bytes -= _SEQUENCE_BYTES + _NUMBERS_HELD * sequence.length_counted
        self.memory.set(self.cached_bytes)


def walks(pair: DecimalPair, position: int) -> bool:
    """Return whether stepping to ``position`` is cheaper than computing the terms there.

    Measured: computing a pair of 200, 20 thousand and 200 thousand digits takes as long as 10, 107
    and 315 steps.
    """
    distance = position - pair.position
    return distance * distance <= pair.length // 2


def farthest_within(cache_bytes: int) -> int:
    """Return the farthest position at which the terms of a sequence fit in ``cache_bytes``."""
    return int(cache_bytes / _NUMBERS_HELD * _INDICES_A_DIGIT)
