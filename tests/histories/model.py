"""What a sequence does with one request: the specification that histories are checked against.

A sequence is its position, or None where there is none. A request changes it in one instant, or
not at all, and the reply shows the position of that instant.
"""

from enum import Enum
from typing import NamedTuple

State = int | None


class Kind(Enum):
    READ = "read"
    STEP = "step"
    PUT = "put"
    CREATE = "create"
    DELETE = "delete"


class Request(NamedTuple):
    """A request of one sequence.

    Attributes:
        kind: What is to be done.
        amount: By how much to step, or where to put it.
        expected: The only position from which it may be done (``If-Match``); None for any.
    """

    kind: Kind
    amount: int = 0
    expected: int | None = None


class Status(Enum):
    DONE = "done"
    START = "start"
    """There is no term before F(0); nothing has changed."""
    MISMATCH = "mismatch"
    """The sequence is at another position than the expected one; nothing has changed."""
    ABSENT = "absent"
    """There is no such sequence."""


class Answer(NamedTuple):
    status: Status
    position: int | None = None


def answer(state: State, request: Request) -> tuple[State, Answer]:
    """Return the state after the request, and the answer."""
    if request.kind is Kind.CREATE:
        if state is None:
            return request.amount, Answer(Status.DONE, request.amount)
        return state, Answer(Status.MISMATCH, state)
    if state is None:
        return None, Answer(Status.ABSENT)
    if request.expected not in (None, state):
        return state, Answer(Status.MISMATCH, state)
    match request.kind:
        case Kind.READ:
            return state, Answer(Status.DONE, state)
        case Kind.DELETE:
            return None, Answer(Status.DONE)
        case Kind.PUT:
            return request.amount, Answer(Status.DONE, request.amount)
        case Kind.STEP if state + request.amount < 0:
            return state, Answer(Status.START, state)
        case _:
            return state + request.amount, Answer(Status.DONE, state + request.amount)
