"""Named positions in the Fibonacci sequence and their current terms.

A sequence has an id and a position, 0 until it is first stepped. The store keeps the position. The
term follows from the position; `current_terms` has it in memory.
"""

import os
import re
from typing import Final

from gmpy2 import mpz

from bigfib.current_terms import CurrentTerms, Sequence, walks
from bigfib.metrics import Counter
from bigfib.numbers.decimals import DecimalPair, StartOfSequence
from bigfib.numbers.fibonacci import MAX_INDEX, IndexTooLarge, InvalidIndex, parse_index
from bigfib.settings import CACHE_BYTES, MAX_SEQUENCES
from bigfib.state.store import (
    PositionMismatch,
    SequenceExists,
    SequenceNotFound,
    Store,
    Unavailable,
)
from bigfib.terms import INLINE_LIMIT

SHARED: Final = b"shared"
"""The id of the sequence that all clients share."""

_ID: Final = re.compile("[0-9a-f]{32}", re.ASCII)

# Each attempt after the first means that another server has changed the sequence meanwhile.
_ATTEMPTS: Final = 20

_BEFORE_LIMIT: Final = INLINE_LIMIT - 1


class UnknownSequence(LookupError):
    """There is no sequence of this id: never created, deleted, or expired."""


class _Overtaken(Exception):
    """Another server has changed the sequence between the lookup and the step."""


class TooManySequences(Exception):
    """The limit of sequences is reached; the message names it."""


def parse_id(text: str) -> bytes:
    """Return the id written as ``text``: ``shared``, or 32 hexadecimal digits in lower case.

    Raises:
        UnknownSequence: ``text`` is not an id.
    """
    if text == SHARED.decode():
        return SHARED
    if not _ID.fullmatch(text):
        raise UnknownSequence("an id has 32 hexadecimal digits in lower case")
    return bytes.fromhex(text)


def format_id(sequence_id: bytes) -> str:
    """Return the text of ``sequence_id``, which `parse_id` reads."""
    return SHARED.decode() if sequence_id == SHARED else sequence_id.hex()


def require_steps(steps: mpz) -> mpz:
    """Return ``steps`` if it is a number of steps.

    Raises:
        InvalidIndex: it is less than 1.
    """
    if steps < 1:
        raise InvalidIndex("the number of steps must be at least 1")
    return steps


def parse_position(text: str) -> mpz:
    """Return the position written as ``text``.

    Raises:
        InvalidIndex: ``text`` is not a whole number of at least 0.
        IndexTooLarge: as `parse_index`.
    """
    position = parse_index(text)
    if position < 0:
        raise InvalidIndex("a sequence begins at position 0; there is none before it")
    return position


class Sequences(CurrentTerms):
    """All sequences of a store.

    Attributes:
        steps_forward: Steps forward made by this process.
        steps_back: Steps back made by this process.
        farthest: The farthest position that a sequence may be moved to at once, at least
            `INLINE_LIMIT`.

    All methods also raise the errors of the `Store` methods that they call.
    """

    def __init__(
        self,
        store: Store,
        *,
        cache_bytes: int = CACHE_BYTES,
        max_sequences: int = MAX_SEQUENCES,
        farthest: int = MAX_INDEX - 1,
    ) -> None:
        """Serve the sequences in ``store``.

        Args:
            store: The store of the positions.
            cache_bytes: As `CurrentTerms` takes it.
            max_sequences: The limit of sequences.
            farthest: The farthest position that a sequence may be moved to at once.
        """
        super().__init__(cache_bytes)
        self._store = store
        self.farthest = farthest
        self._max_sequences = max_sequences
        self.steps_forward = Counter()
        self.steps_back = Counter()

    def current(self, sequence_id: bytes) -> Sequence:
        """Return the sequence, which is at 0 if it has never been stepped."""
        position = self._store.find(sequence_id) or 0
        sequence = self._cached.get(sequence_id)
        if sequence is None or sequence.pair.position != position:
            return self.at(sequence_id, position)
        self._cached.move_to_end(sequence_id)
        return sequence

    def existing(self, sequence_id: bytes) -> Sequence:
        """Return the sequence.

        Raises:
            UnknownSequence: it is neither the shared one nor in the store.
        """
        return self.at(sequence_id, self.position(sequence_id))

    def position(self, sequence_id: bytes) -> int:
        """Return the position of the sequence, for which its term need not be ready.

        Raises:
            UnknownSequence: as `existing`.
        """
        position = self._store.find(sequence_id)
        if position is None and sequence_id != SHARED:
            raise self._unknown(sequence_id)
        return position or 0

    def create(self) -> Sequence:
        """Create a sequence at 0, with 128 random bits as its id.

        Raises:
            TooManySequences: the limit of sequences is reached.
        """
        sequence_id = os.urandom(16)
        self._create(sequence_id, 0)
        return self.at(sequence_id, 0)

    def forward(self, sequence_id: bytes) -> Sequence:
        """Step the sequence forward and return it; if it does not exist, create it at 0 first.

        Raises:
            TooManySequences: it does not exist, and the limit of sequences is reached.
        """
        return self._step_by_one(sequence_id, 1, 0, _BEFORE_LIMIT)

    def back(self, sequence_id: bytes) -> Sequence:
        """Step the sequence back and return it.

        Raises:
            StartOfSequence: it is at 0; nothing has changed.
        """
        return self._step_by_one(sequence_id, -1, 1, INLINE_LIMIT)

    def _step_by_one(self, sequence_id: bytes, by: int, lowest: int, highest: int) -> Sequence:
        """Step the sequence by one, from a position in ``lowest`` .. ``highest`` if possible.

        This repeats what `_step` does in general, for the step that is nearly always made. Measured
        at position 300 with the record of the step, without its sync: 0.54 of the time of `_step`,
        1.3 us instead of 2.4.
        """
        sequence = self._cached.get(sequence_id)
        if sequence is None:
            sequence = self.current(sequence_id)
        else:
            self._cached.move_to_end(sequence_id)
        pair = sequence.pair
        if not lowest <= pair.position <= highest:
            return self._step(sequence_id, by, creates=True)
        try:
            position = self._store.step(sequence_id, by, lowest, highest)
        except (SequenceNotFound, PositionMismatch):
            return self._step(sequence_id, by, creates=True)
        if by > 0:
            self.steps_forward.values[0] += 1
            pair.forward()
        else:
            self.steps_back.values[0] += 1
            pair.back()
        if pair.position != position:
            self._catch_up(sequence, position)
        elif pair.length != sequence.length_counted:
            self._count(sequence)
        return sequence

    def step(self, sequence_id: bytes, by: int, expected: int | None = None) -> Sequence:
        """Step the sequence by ``by`` positions, and return it.

        Args:
            sequence_id: The sequence.
            by: The number of steps, negative to go back.
            expected: The only position to step from; None for any.

        Raises:
            UnknownSequence: as `existing`.
            PositionMismatch: it is not at the expected position.
            StartOfSequence: the step leads to before 0; nothing has changed.
            IndexTooLarge: as `seek`, but not for steps of one.
        """
        return self._step(sequence_id, by, expected)

    def seek(self, sequence_id: bytes, position: int, expected: int | None = None) -> Sequence:
        """Move the sequence to ``position`` >= 0, and return it.

        Raises:
            UnknownSequence, PositionMismatch: as `step`.
            IndexTooLarge: ``position`` is beyond `farthest`.
        """
        self._require_near(position)
        cached = self._cached.get(sequence_id)
        if position <= INLINE_LIMIT or (cached and walks(cached.pair, position)):
            pair = None
        else:
            # Check first, so that no terms are computed for a change that is refused, and have the
            # terms before the change, so that a position is never without them.
            found = self.position(sequence_id)
            if expected is not None and found != expected:
                raise PositionMismatch(found)
            pair = self.pair_at(position)
        try:
            self._store.put(sequence_id, position, expected)
        except SequenceNotFound:
            if sequence_id != SHARED:
                raise self._unknown(sequence_id) from None
            if expected:
                raise PositionMismatch(0) from None
            try:
                self._create(sequence_id, position)
            except SequenceExists:
                # Another server has created it at this moment.
                self._store.put(sequence_id, position, expected)
        return self._moved(sequence_id, position, pair)

    def delete(self, sequence_id: bytes, expected: int | None = None) -> None:
        """Delete the sequence.

        Raises:
            UnknownSequence, PositionMismatch: as `step`.
        """
        try:
            self._store.delete(sequence_id, expected)
        except SequenceNotFound:
            raise self._unknown(sequence_id) from None
        self.forget(sequence_id)

    def count_steps(self, by: int) -> None:
        """Count steps that have been made, back if ``by`` is negative."""
        if by > 0:
            self.steps_forward.add(by)
        else:
            self.steps_back.add(-by)

    def _step(
        self, sequence_id: bytes, by: int, expected: int | None = None, *, creates: bool = False
    ) -> Sequence:
        """Step the sequence by ``by`` positions; if it does not exist, it may be created at 0."""
        start = self.last_seen(sequence_id) if expected is None else expected
        # Up to `INLINE_LIMIT` every term is ready, so the position need not be looked up first.
        if start is not None and 0 <= start + by <= INLINE_LIMIT:
            lowest, highest = max(0, -by), INLINE_LIMIT - by
            if expected is not None:
                lowest = highest = expected
            try:
                position = self._store.step(sequence_id, by, lowest, highest)
            except SequenceNotFound:
                pass
            except PositionMismatch:
                if expected is not None:
                    raise
            else:
                self.count_steps(by)
                return self._moved(sequence_id, position)
        for _ in range(_ATTEMPTS):
            try:
                return self._step_as_found(sequence_id, by, expected, creates=creates)
            except _Overtaken:
                continue
        raise Unavailable("other servers change this sequence all the time; try again")

    def _step_as_found(
        self, sequence_id: bytes, by: int, expected: int | None, *, creates: bool
    ) -> Sequence:
        """Look up the position, get the terms that the step leads to, then make the step.

        Raises:
            _Overtaken: another server has changed the sequence since the lookup.
        """
        found = self._store.find(sequence_id)
        if found is None and sequence_id != SHARED and not creates:
            raise self._unknown(sequence_id)
        position = found or 0
        if expected is not None and position != expected:
            raise PositionMismatch(position)
        target = position + by
        if target < 0:
            raise StartOfSequence("there is no term before F(0)")
        if abs(by) != 1:
            self._require_near(target)
        sequence = self.at(sequence_id, position)
        pair = None
        if target > INLINE_LIMIT and not walks(sequence.pair, target):
            pair = self.pair_at(target)
        try:
            if found is None:
                self._create(sequence_id, target)
            else:
                lowest, highest = self.reach(sequence_id, by, by)
                if expected is not None or pair:
                    lowest = highest = position
                target = self._store.step(sequence_id, by, lowest, highest)
        except (SequenceNotFound, SequenceExists, PositionMismatch):
            raise _Overtaken from None
        self.count_steps(by)
        return self._moved(sequence_id, target, pair)

    def _moved(
        self, sequence_id: bytes, position: int, pair: DecimalPair | None = None
    ) -> Sequence:
        """Return the sequence after a move to ``position``, whose terms are ``pair`` if given."""
        return self._hold(sequence_id, pair) if pair else self.at(sequence_id, position)

    def _create(self, sequence_id: bytes, position: int) -> None:
        # The shared sequence always exists and does not count.
        if sequence_id != SHARED and self._store.holds(self._max_sequences):
            raise TooManySequences(
                f"the limit of {self._max_sequences} sequences is reached; delete one that is no "
                "longer needed"
            )
        self._store.create(sequence_id, position)

    def _require_near(self, position: int) -> None:
        if position > self.farthest:
            raise IndexTooLarge(
                f"a sequence can be moved to position {self.farthest} at most; steps of one go "
                "farther"
            )

    def _unknown(self, sequence_id: bytes) -> UnknownSequence:
        self.forget(sequence_id)
        return UnknownSequence("there is no such sequence")
