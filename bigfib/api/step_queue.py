"""Make many steps of a shared store in one transaction.

A transaction takes as long for one step as for many, and a server with one thread waits for it. So
steps of ``/api0`` wait in a `StepQueue` while bjoern reads requests, and the first reply that
bjoern continues runs one transaction for all. A sequence that many requests step is moved once;
each reply shows the term after its own step.

By then the replies have begun. If a step is refused or its outcome is unknown, its reply is aborted
in the middle of its body; so only steps that are unlikely to be refused are queued. If other
sessions hold a sequence locked in the store, its steps wait for later transactions, for
`WAIT_SECONDS` at most.
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

# Lowest position, when last seen, from which a step is queued, by its direction; 0 is a look.
# Forward: a sequence above 0 exists in the store. Back: other servers are unlikely to have moved
# the sequence to 0 since it was seen.
_TAKEN_FROM: Final = {0: 0, 1: 1, -1: 1000}


class NotMade(Exception):
    """A step was not made, it is unknown whether it was, or its term cannot be shown."""


class WaitingStep:
    """A step ``by`` 1 or -1, or a look (0), that waits for its transaction.

    ``added`` is when it was added, by `time.monotonic`; ``locked`` is whether a transaction has
    found its sequence locked.
    """

    __slots__ = ("_digits", "_queue", "added", "by", "locked", "sequence_id")

    def __init__(self, queue: "StepQueue", sequence_id: bytes, by: int) -> None:
        self._queue: StepQueue | None = queue
        self._digits: bytes | None = None
        self.sequence_id = sequence_id
        self.by = by
        self.added = time.monotonic()
        self.locked = False

    @property
    def is_settled(self) -> bool:
        """Whether the outcome of the step is known, or will stay unknown."""
        return self._queue is None

    def try_until(self, share: float) -> bool:
        """Run transactions until the step is settled, and return whether it is.

        While others hold the sequence locked, return False after ``share`` of `WAIT_SECONDS`.
        """
        while self._queue and not (
            self.locked and time.monotonic() >= self.added + share * WAIT_SECONDS
        ):
            self._queue.commit()
        return self._queue is None

    def digits(self) -> bytes:
        """Return the term after the committed step, or raise `NotMade`."""
        if self._queue and not self.try_until(1):
            self._queue.give_up_locked(self.sequence_id)
        if self._digits is None:
            raise NotMade
        return self._digits

    def set_outcome(self, digits: bytes | None) -> None:
        """Set the outcome: the term after the step, or None to make `digits` raise `NotMade`."""
        self._queue = None
        self._digits = digits

    def withdraw(self) -> None:
        """Remove the step unless it is settled: its client has gone."""
        if self._queue:
            self._queue.remove(self)


class StepQueue:
    """The steps that wait for the next transaction of a shared store."""

    def __init__(self, sequences: Sequences, store: SharedStore) -> None:
        """Step ``sequences``, which are in ``store``."""
        self._sequences = sequences
        self._store = store
        self._waiting: dict[bytes, list[WaitingStep]] = {}

    def takes(self, sequence_id: bytes, by: int) -> bool:
        """Return whether a step may be added: the store is unlikely to refuse it."""
        position = self._sequences.last_seen(sequence_id)
        if position is None or position < _TAKEN_FROM[by]:
            return False
        steps = len(self._waiting.get(sequence_id, ())) + 1
        return self._sequences.allows_batch(sequence_id, steps) and self._store.is_open()

    def add(self, sequence_id: bytes, by: int) -> WaitingStep:
        """Add a step forward (1) or back (-1), or a look (0)."""
        waiting = WaitingStep(self, sequence_id, by)
        self._waiting.setdefault(sequence_id, []).append(waiting)
        return waiting

    def remove(self, waiting: WaitingStep) -> None:
        """Remove a step that has been added and is not settled."""
        self._waiting[waiting.sequence_id].remove(waiting)

    def give_up_locked(self, sequence_id: bytes) -> None:
        """Give up the steps of a locked sequence that have waited for `WAIT_SECONDS`."""
        oldest = time.monotonic() - WAIT_SECONDS
        waiting = self._waiting[sequence_id]
        given_up = [each for each in waiting if each.added <= oldest]
        self._waiting[sequence_id] = [each for each in waiting if each.added > oldest]
        for each in given_up:
            each.set_outcome(None)
        _logger.warning("%d replies are aborted: their sequence is locked", len(given_up))
        self._store.give_up_locked()

    def commit(self) -> None:
        """Make all waiting steps in one transaction; settle those whose sequence is not locked."""
        batch = [steps for steps in self._waiting.values() if steps]
        self._waiting = {}
        stepped = [steps for steps in batch if any(waiting.by for waiting in steps)]
        looked_at = [steps for steps in batch if not any(waiting.by for waiting in steps)]
        try:
            self._make(stepped, looked_at)
        except (Unavailable, NoRoom, OutcomeUnknown) as error:
            _logger.warning("%d replies are aborted: %s", sum(map(len, batch)), error)
        finally:
            # Even after an unforeseen error, no reply may wait for ever.
            for waiting in chain.from_iterable(batch):
                if not waiting.is_settled and waiting.sequence_id not in self._waiting:
                    waiting.set_outcome(None)

    def _make(self, stepped: list[list[WaitingStep]], looked_at: list[list[WaitingStep]]) -> None:
        positions = self._store.step_all(
            [self._sum(steps) for steps in stepped],
            [steps[0].sequence_id for steps in looked_at],
        )
        made = sum(
            len(steps)
            for steps, position in zip(stepped, positions, strict=False)
            if position not in (None, LOCKED)
        )
        if made:
            self._store.on_commit(None, made)
        for steps, position in zip(stepped, positions, strict=False):
            self._set_outcomes(steps, position)
        for steps, position in zip(looked_at, positions[len(stepped) :], strict=True):
            self._set_outcomes(steps, position or 0)

    def _sum(self, steps: list[WaitingStep]) -> Steps:
        """Return the sum of the steps of one sequence."""
        at = least = most = 0
        for waiting in steps:
            at += waiting.by
            least, most = min(least, at), max(most, at)
        sequence_id = steps[0].sequence_id
        return Steps(sequence_id, at, *self._sequences.reach(sequence_id, least, most))

    def _set_outcomes(self, steps: list[WaitingStep], position: int | None) -> None:
        """Settle the steps of one sequence, whose position is as `step_all` returns it."""
        sequence_id = steps[0].sequence_id
        if position == LOCKED:
            for waiting in steps:
                waiting.locked = True
            self._waiting[sequence_id] = steps
            return
        if position is None:
            # The next request for the sequence is answered with the reason.
            self._sequences.forget(sequence_id)
            for waiting in steps:
                waiting.set_outcome(None)
            return
        position -= sum(waiting.by for waiting in steps)
        for waiting in steps:
            position += waiting.by
            self._sequences.count_steps(waiting.by)
            try:
                waiting.set_outcome(self._sequences.at(sequence_id, position).digits())
            except (TermNotReady, IndexTooLarge):
                # The next request for the sequence is answered with the reason.
                self._sequences.forget(sequence_id)
                waiting.set_outcome(None)
