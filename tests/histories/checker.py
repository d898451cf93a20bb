"""Decide whether a history is linearizable.

It is, if every operation can be given an instant between its invocation and its return, such that
all of them, done in that order, are answered as they were. (Wing and Gong, "Testing and verifying
concurrent objects", 1993.) Histories of different sequences are checked apart: all of them are
linearizable if each is (Herlihy and Wing, 1990).

The search is Wing and Gong's with two of Lowe's refinements ("Testing for linearizability", 2017):
a configuration that was seen is not searched again, and an operation is done only when one that
returns needs it. A configuration is the state, and which operations that have not returned are
done. Each event of the history takes the set of possible configurations to the next set; where none
is left, the operation that returned there has no place.

An operation of unknown outcome returns when it cannot be done any more, and may never be done.
While a store is lost there are many. So more is left out, which loses nothing:

* What changes nothing, and tells nothing new, is done at once if it is answered right.
* Of two that ask the same, the one that returns first is done first: the other can take its place.
* Of two configurations that differ only in that one has done more of them, that one: the other can
  still do them, or not.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tests.histories.history import NEVER, Operation, around
from tests.histories.model import State


class NotLinearizable(AssertionError):
    """No order of the operations explains their replies."""


class Configuration(NamedTuple):
    """What may be so at a moment.

    Attributes:
        state: Where the sequence is.
        done: The operations that are done and have not returned.
        guessed: Those among the ones with unknown outcome.
    """

    state: State
    done: frozenset[int] = frozenset()
    guessed: frozenset[int] = frozenset()

    def without(self, number: int) -> "Configuration":
        """Return the configuration after the operation has returned."""
        return Configuration(self.state, self.done - {number}, self.guessed - {number})


class _Configurations:
    """Configurations, none of which only adds guesses to another."""

    def __init__(self) -> None:
        self._guesses: dict[tuple[State, frozenset[int]], list[frozenset[int]]] = defaultdict(list)

    def add(self, one: Configuration) -> bool:
        """Add a configuration if it is needed; those with fewer guesses must come first."""
        known = self._guesses[one.state, one.done]
        if any(guessed <= one.guessed for guessed in known):
            return False
        known.append(one.guessed)
        return True


def check(histories: dict[str, list[Operation]], initial: dict[str, State]) -> None:
    """Return if all histories are linearizable, from these states; None is that of others.

    Raises:
        NotLinearizable: one is not; the message shows the operations up to the place.
    """
    for sequence, operations in sorted(histories.items()):
        check_one(operations, initial.get(sequence))


def check_one(operations: list[Operation], initial: State) -> None:
    """Return if the history of one sequence is linearizable.

    Raises:
        NotLinearizable: it is not.
    """
    pending: dict[int, Operation] = {}
    possible = [Configuration(initial)]
    for returns, number in _events(operations):
        operation = operations[number]
        if not returns:
            pending[number] = operation
            continue
        found = list(_done(possible, number, pending))
        if operation.reply is None:
            # It was done, or never will be.
            found += [one for one in possible if number not in one.guessed]
        if not found:
            before = sorted(str(one.state) for one in possible)
            raise NotLinearizable(
                f"no order explains {operation}; before it: at {' or '.join(before)}; "
                f"of {len(operations)} operations the last:\n{around(operations, operation)}"
            )
        del pending[number]
        kept = _Configurations()
        left = sorted((one.without(number) for one in found), key=_guesses)
        possible = [one for one in left if kept.add(one)]


def _guesses(one: Configuration) -> int:
    return len(one.guessed)


def _events(operations: list[Operation]) -> Iterator[tuple[bool, int]]:
    """Yield invocations and returns in order: whether it is a return, and of which operation."""
    events = [(one.invoked, False, number) for number, one in enumerate(operations)]
    events += [
        (one.returned, True, number)
        for number, one in enumerate(operations)
        if one.returned != NEVER
    ]
    for _, returns, number in sorted(events):
        yield returns, number


def _done(
    possible: Iterable[Configuration], number: int, pending: dict[int, Operation]
) -> Iterator[Configuration]:
    """Yield the configurations in which the operation is done, and only others it needs."""
    seen = _Configurations()
    # In order of the number of guesses, which only grows.
    waiting = defaultdict(list)
    for one in possible:
        waiting[_guesses(one)].append(one)
    while waiting:
        fewest = min(waiting)
        for one in waiting.pop(fewest):
            if not seen.add(one):
                continue
            if number in one.done or number in one.guessed:
                yield one
                continue
            for following in _next(one, pending):
                waiting[_guesses(following)].append(following)


def _next(one: Configuration, pending: dict[int, Operation]) -> Iterator[Configuration]:
    """Yield the configurations after one or a few more of the pending operations."""
    following = []
    looks = set()
    # Of those with unknown outcome and the same request, only the first to return.
    first: dict[object, int] = {}
    for number, operation in pending.items():
        if operation.reply:
            if number not in one.done:
                for state in operation.outcomes(one.state):
                    following.append(Configuration(state, one.done | {number}, one.guessed))
                    if operation.changes_nothing and state == one.state:
                        looks.add(number)
        elif number not in one.guessed:
            other = first.setdefault(operation.request, number)
            if (operation.returned, number) < (pending[other].returned, other):
                first[operation.request] = number
    if looks:
        yield Configuration(one.state, one.done | looks, one.guessed)
        return
    yield from following
    for number in first.values():
        for state in pending[number].outcomes(one.state):
            # Without an effect it is the same as never.
            if state != one.state:
                yield Configuration(state, one.done, one.guessed | {number})
