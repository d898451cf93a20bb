"""The checker: histories written by hand, and every order of small random ones."""

import itertools
import random
from collections import Counter

import pytest

from tests.histories.checker import NotLinearizable, check, check_one
from tests.histories.history import NEVER, Operation, Reply
from tests.histories.model import At, Kind, Request, State, Status, answers

READ = Request(Kind.READ)
NEXT = Request(Kind.STEP, 1)
CREATE = Request(Kind.CREATE)
DELETE = Request(Kind.DELETE)
ANY = At(0, is_known=False)
DONE, MISMATCH, START, ABSENT = Status.DONE, Status.MISMATCH, Status.START, Status.ABSENT


def op(
    request: Request,
    invoked: int,
    returned: int,
    status: Status | None = Status.DONE,
    *positions: int,
    version: int | None = None,
) -> Operation:
    """Return an operation; without status its outcome is unknown."""
    reply = None if status is None else Reply(status, frozenset(positions) or None, version)
    return Operation(0, "one", request, reply, invoked, returned)


def step(expected: int, by: int = 1, version: int | None = None) -> Request:
    return Request(Kind.STEP, by, expected, version)


LINEARIZABLE = {
    "steps one after the other": [op(NEXT, 0, 1, DONE, 1), op(NEXT, 2, 3, DONE, 2)],
    "steps at once, answered in the other order": [
        op(NEXT, 0, 4, DONE, 2),
        op(NEXT, 1, 5, DONE, 1),
    ],
    "a read at the time of a step shows it or not": [
        op(NEXT, 0, 9, DONE, 1),
        op(READ, 1, 2, DONE, 0),
        op(READ, 3, 4, DONE, 1),
    ],
    "a step of unknown outcome that was made": [op(NEXT, 0, NEVER, None), op(READ, 2, 3, DONE, 1)],
    "a step of unknown outcome that was not made": [
        op(NEXT, 0, NEVER, None),
        op(READ, 2, 3, DONE, 0),
    ],
    "a step of unknown outcome that is made late": [
        op(NEXT, 0, 6, None),
        op(READ, 2, 3, DONE, 0),
        op(READ, 7, 8, DONE, 1),
    ],
    "only the later of two unknown steps": [
        op(NEXT, 0, 3, None),
        op(NEXT, 1, 9, None),
        op(READ, 4, 5, DONE, 0),
        op(READ, 10, 11, DONE, 1),
    ],
    "1 is F(1) and F(2)": [op(NEXT, 0, 1, DONE, 1, 2), op(NEXT, 2, 3, DONE, 1, 2)],
    "a condition that is met and then is not": [
        op(step(0), 0, 1, DONE, 1),
        op(step(0), 2, 3, MISMATCH, 1),
    ],
    "a lost reply and a retry with the same condition": [
        op(step(0), 0, NEVER, None),
        op(step(0), 2, 3, MISMATCH, 1),
        op(READ, 4, 5, DONE, 1),
    ],
    "back at the start": [op(Request(Kind.STEP, -1), 0, 1, START), op(READ, 2, 3, DONE, 0)],
    "deleted, absent, created": [
        op(DELETE, 0, 1, DONE),
        op(NEXT, 2, 3, ABSENT),
        op(CREATE, 4, 5, DONE, 0),
        op(NEXT, 6, 7, DONE, 1),
    ],
    "versions grow, by any number": [
        op(NEXT, 0, 1, DONE, 1, version=7),
        op(NEXT, 2, 3, DONE, 2, version=8),
        op(READ, 4, 5, DONE, 2, version=8),
        op(NEXT, 6, 7, DONE, 3, version=20),
    ],
    "a retry of one version after others moved it back": [
        op(READ, 0, 1, DONE, 0, version=7),
        op(step(0, version=7), 2, NEVER, None),
        op(Request(Kind.PUT, 0), 4, 5, DONE, 0, version=9),
        op(step(0, version=7), 6, 7, MISMATCH, 0, version=9),
    ],
    "a look that is early or late": [
        op(NEXT, 0, 1, DONE, 1),
        op(READ, 2, 9, DONE, 1, version=5),
        op(NEXT, 3, 4, DONE, 2, version=3),
        op(Request(Kind.STEP, -1), 5, 6, DONE, 1),
    ],
    "put between a look and a step": [
        op(Request(Kind.PUT, 7), 0, 9, DONE, 7),
        op(READ, 1, 2, DONE, 0),
        op(step(0), 3, 4, MISMATCH, 7),
    ],
}

NOT_LINEARIZABLE = {
    "an acknowledged step that is lost": [op(NEXT, 0, 1, DONE, 1), op(READ, 2, 3, DONE, 0)],
    "a step made twice": [op(NEXT, 0, 1, DONE, 1), op(READ, 2, 3, DONE, 2)],
    "one answer for two steps": [op(NEXT, 0, 5, DONE, 1), op(NEXT, 1, 4, DONE, 1)],
    "a stale read": [
        op(NEXT, 0, 1, DONE, 1),
        op(NEXT, 2, 3, DONE, 2),
        op(READ, 4, 5, DONE, 1),
    ],
    "a stale 412": [op(NEXT, 0, 1, DONE, 1), op(step(1), 2, 3, MISMATCH, 0)],
    "a position shown and taken back": [
        op(NEXT, 0, 3, None),
        op(READ, 1, 2, DONE, 1),
        op(READ, 4, 5, DONE, 0),
    ],
    "a step of unknown outcome made after its end": [
        op(NEXT, 0, 3, None),
        op(READ, 4, 5, DONE, 0),
        op(READ, 6, 7, DONE, 1),
    ],
    "one unknown step made twice": [op(NEXT, 0, NEVER, None), op(READ, 2, 3, DONE, 2)],
    "a retry that steps again": [
        op(step(0), 0, NEVER, None),
        op(step(0), 2, 3, DONE, 1),
        op(READ, 4, 5, DONE, 2),
    ],
    "a retry of one version that steps again": [
        op(READ, 0, 1, DONE, 0, version=7),
        op(step(0, version=7), 2, NEVER, None),
        op(Request(Kind.PUT, 0), 4, 5, DONE, 0, version=9),
        op(step(0, version=7), 6, 7, DONE, 1, version=10),
    ],
    "two changes with one version": [
        op(NEXT, 0, 1, DONE, 1, version=7),
        op(Request(Kind.PUT, 1), 2, 3, DONE, 1, version=7),
    ],
    "another version without a change": [
        op(READ, 0, 1, DONE, 0, version=7),
        op(READ, 2, 3, DONE, 0, version=8),
    ],
    "a condition on the version that is refused although it holds": [
        op(NEXT, 0, 1, DONE, 1, version=7),
        op(step(1, version=7), 2, 3, MISMATCH, 1, version=7),
    ],
    "a conditional step from elsewhere": [op(NEXT, 0, 1, DONE, 1), op(step(0), 2, 3, DONE, 2)],
    "a condition that is refused although it holds": [op(step(0), 0, 1, MISMATCH, 0)],
    "a step before the start": [op(Request(Kind.STEP, -1), 0, 1, DONE, 0)],
    "absent without a deletion": [op(NEXT, 0, 1, ABSENT)],
    "alive after its deletion": [op(DELETE, 0, 1, DONE), op(READ, 2, 3, DONE, 0)],
}


@pytest.mark.parametrize("name", LINEARIZABLE)
def test_linearizable_history_is_accepted(name: str) -> None:
    check_one(LINEARIZABLE[name], ANY)


@pytest.mark.parametrize("name", NOT_LINEARIZABLE)
def test_history_that_is_not_linearizable_is_refused(name: str) -> None:
    with pytest.raises(NotLinearizable, match="no order explains"):
        check_one(NOT_LINEARIZABLE[name], ANY)


def test_sequences_are_checked_apart() -> None:
    good = LINEARIZABLE["steps one after the other"]
    check({"a": good, "b": good}, {"a": At(0), "b": At(0)})
    with pytest.raises(NotLinearizable):
        check({"a": good, "b": good}, {"a": At(0)})


# --- Every order -------------------------------------------------------------------------------


def is_linearizable(operations: list[Operation], initial: State) -> bool:
    """Try every order of every choice of the operations with unknown outcome."""
    known = [one for one in operations if one.reply]
    unknown = [one for one in operations if not one.reply]
    return any(
        _explains(order, initial)
        for count in range(len(unknown) + 1)
        for chosen in itertools.combinations(unknown, count)
        for order in itertools.permutations([*known, *chosen])
    )


def _explains(order: tuple[Operation, ...], initial: State) -> bool:
    latest = -1
    states = {initial}
    for operation in order:
        latest = max(latest, operation.invoked)
        if operation.returned < latest:
            return False
        states = {after for state in states for after in operation.outcomes(state)}
    return bool(states)


def _small(chance: random.Random) -> list[Operation]:
    """Return a history made in some order, in which one reply may have been changed."""
    requests = [READ, NEXT, NEXT, step(0), step(1), step(2, -1), Request(Kind.STEP, -1)]
    requests += [Request(Kind.PUT, 2), CREATE, DELETE, Request(Kind.DELETE, 0, 1)]
    requests += [step(1, version=2), step(0, version=3), Request(Kind.PUT, 1, 1, 3)]
    state: State = At(0)
    operations = []
    unknown = chance.choice([0.1, 0.3, 0.6])
    for number in range(5):
        request = chance.choice(requests)
        ((status, state),) = answers(state, request)
        if state and not state.is_known:
            state = At(state.position, state.version + chance.randint(1, 2))
        shown = state
        instant = 10 * number + 5
        invoked, returned = instant - chance.randint(1, 25), instant + chance.randint(1, 25)
        if chance.random() < 0.1:
            others = [None, *(At(chance.randint(0, 2), chance.randint(0, 6)) for _ in range(3))]
            status, shown = answers(chance.choice(others), request)[0]
        positions = None if shown is None else frozenset([shown.position])
        version = shown.version if shown and chance.random() < 0.5 else None
        reply = None if chance.random() < unknown else Reply(status, positions, version)
        if reply is None and chance.random() < 0.5:
            returned = NEVER
        operations.append(Operation(0, "one", request, reply, invoked, returned))
    chance.shuffle(operations)
    return operations


def test_small_histories_are_judged_as_by_trying_every_order(
    times: int, tried: Counter[str]
) -> None:
    chance = random.Random(3)
    judged: Counter[bool] = Counter()
    for _ in range(2000 * times):
        operations = _small(chance)
        expected = is_linearizable(operations, At(0))
        try:
            check_one(operations, At(0))
            found = True
        except NotLinearizable:
            found = False
        assert found == expected, "\n".join(map(str, operations))
        judged[expected] += 1
    tried["small histories judged"] += judged.total()
    assert min(judged[True], judged[False]) > 300 * times
