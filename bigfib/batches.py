"""Steps that wait at the same moment share one transaction of the store.

A transaction takes as long for one step as for many, and a server with one thread waits for it. So
steps are put together as long as requests are read, and the first reply that is to go on makes the
transaction for all. A sequence that many step is moved once, by as many terms as they step it, and
each is told the term after its own step.

By then the replies have begun. Steps that turn out not to be made, or of which nobody knows, have
no other answer than that their replies end in the middle; so what could be refused is not taken.

A step of a sequence that others hold locked in the store stays for the next transactions, with
those that are added meanwhile, until `WAIT_SECONDS` have passed since it was added.
"""

import logging
import time
from itertools import chain
from typing import Final

from bigfib.jobs import TermNotReady
from bigfib.numbers.fibonacci import IndexTooLarge
from bigfib.sequences import Sequences
from bigfib.state.store import (
    LOCKED,
    WAIT_SECONDS,
    NoRoom,
    OutcomeUnknown,
    SharedStore,
    Steps,
    Unavailable,
)

_logger = logging.getLogger(__name__)

# The position from which a step may be added that will hardly be refused. Forward: one that is
# not at 0 is in the store. Back: others can hardly have led it to 0 meanwhile.
_TAKEN_FROM: Final = {0: 0, 1: 1, -1: 1000}


class NotMade(Exception):
    """A step of a batch has not been made, or it is unknown whether it has."""


class Waiting:
    """A step, or a look at a sequence, that waits for its batch.

    Attributes:
        sequence_id: Which sequence.
        by: 1, -1, or 0 for a look.
        added: When it was added, by `time.monotonic`.
        locked: Whether a transaction has found its sequence locked.
    """

    __slots__ = ("_batches", "_digits", "added", "by", "locked", "sequence_id")

    def __init__(self, batches: "Batches", sequence_id: bytes, by: int) -> None:
        self._batches: Batches | None = batches
        self._digits: bytes | None = None
        self.sequence_id = sequence_id
        self.by = by
        self.added = time.monotonic()
        self.locked = False

    @property
    def settled(self) -> bool:
        """Whether it is known what came of it, or that nobody knows."""
        return self._batches is None

    def settles(self, share: float) -> bool:
        """Make the batch, and again while others hold the sequence locked.

        Args:
            share: What share of `WAIT_SECONDS` may have passed in the end.

        Returns:
            Whether it is settled.
        """
        while self._batches and not (
            self.locked and time.monotonic() >= self.added + share * WAIT_SECONDS
        ):
            self._batches.commit()
        return self._batches is None

    def digits(self) -> bytes:
        """Return the term at the sequence's position behind the step, which is then committed.

        Raises:
            NotMade: there is none.
        """
        if self._batches and not self.settles(1):
            self._batches.give_up_locked(self.sequence_id)
        if self._digits is None:
            raise NotMade
        return self._digits

    def settle(self, digits: bytes | None) -> None:
        """Take what came of it."""
        self._batches = None
        self._digits = digits

    def withdraw(self) -> None:
        """Give it up, if it has not been made yet: nobody waits for the answer."""
        if self._batches:
            self._batches.remove(self)


class Batches:
    """What waits for the next transaction of a store."""

    def __init__(self, sequences: Sequences, store: SharedStore) -> None:
        """Step ``sequences``, which are in ``store``."""
        self._sequences = sequences
        self._store = store
        self._waiting: dict[bytes, list[Waiting]] = {}

    def takes(self, sequence_id: bytes, by: int) -> bool:
        """Return whether a step may be added: it will not be refused, as far as can be foreseen."""
        position = self._sequences.last_seen(sequence_id)
        return (
            position is not None
            and position >= _TAKEN_FROM[by]
            and self._store.may_step(sequence_id)
        )

    def add(self, sequence_id: bytes, by: int) -> Waiting:
        """Add a step forward (1) or back (-1), or a look (0)."""
        waiting = Waiting(self, sequence_id, by)
        self._waiting.setdefault(sequence_id, []).append(waiting)
        return waiting

    def remove(self, waiting: Waiting) -> None:
        """Take back what has been added."""
        self._waiting[waiting.sequence_id].remove(waiting)

    def give_up_locked(self, sequence_id: bytes) -> None:
        """Settle the steps of a locked sequence that have waited for long enough: not made."""
        oldest = time.monotonic() - WAIT_SECONDS
        waiting = self._waiting[sequence_id]
        given_up = [each for each in waiting if each.added <= oldest]
        self._waiting[sequence_id] = [each for each in waiting if each.added > oldest]
        for each in given_up:
            each.settle(None)
        # Whoever asks again is told so before the reply begins.
        self._sequences.forget(sequence_id)
        _logger.warning("%d replies are cut off: their sequence is locked", len(given_up))
        self._store.give_up_locked(sequence_id)

    def commit(self) -> None:
        """Make all that waits, in one transaction, and settle each whose sequence is not locked."""
        batch = [of_one for of_one in self._waiting.values() if of_one]
        self._waiting = {}
        stepped = [of_one for of_one in batch if any(waiting.by for waiting in of_one)]
        looked_at = [of_one for of_one in batch if not any(waiting.by for waiting in of_one)]
        try:
            self._make(stepped, looked_at)
        except (Unavailable, NoRoom, OutcomeUnknown) as error:
            _logger.warning("%d replies are cut off: %s", sum(map(len, batch)), error)
        finally:
            # Whatever has happened, an error of our own too: nobody waits for ever.
            for waiting in chain.from_iterable(batch):
                if not waiting.settled and waiting.sequence_id not in self._waiting:
                    waiting.settle(None)

    def _make(self, stepped: list[list[Waiting]], looked_at: list[list[Waiting]]) -> None:
        positions = self._store.step_all(
            [self._steps(of_one) for of_one in stepped],
            [of_one[0].sequence_id for of_one in looked_at],
        )
        made = sum(
            len(of_one)
            for of_one, position in zip(stepped, positions, strict=False)
            if position not in (None, LOCKED)
        )
        if made:
            self._store.on_commit(None, made)
        for of_one, position in zip(stepped, positions, strict=False):
            self._settle(of_one, position)
        for of_one, position in zip(looked_at, positions[len(stepped) :], strict=True):
            self._settle(of_one, position or 0)

    def _steps(self, of_one: list[Waiting]) -> Steps:
        at = least = most = 0
        for waiting in of_one:
            at += waiting.by
            least, most = min(least, at), max(most, at)
        sequence_id = of_one[0].sequence_id
        return Steps(sequence_id, at, *self._sequences.reach(sequence_id, least, most))

    def _settle(self, of_one: list[Waiting], position: int | None) -> None:
        sequence_id = of_one[0].sequence_id
        if position == LOCKED:
            for waiting in of_one:
                waiting.locked = True
            self._waiting[sequence_id] = of_one
            return
        if position is None:
            # Whoever asks again finds out why.
            self._sequences.forget(sequence_id)
            for waiting in of_one:
                waiting.settle(None)
            return
        position -= sum(waiting.by for waiting in of_one)
        for waiting in of_one:
            position += waiting.by
            self._sequences.count_steps(waiting.by)
            try:
                waiting.settle(self._sequences.at(sequence_id, position).pair.digits())
            except (TermNotReady, IndexTooLarge):
                # Whoever asks again is told so before the reply begins.
                self._sequences.forget(sequence_id)
                waiting.settle(None)
