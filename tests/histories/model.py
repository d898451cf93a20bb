"""What a sequence does with one request: the specification that histories are checked against.

A sequence is at a position and has a version, or there is none. A request changes it in one
instant, or not at all, and the reply shows the position, and perhaps the version, of that instant.
A change leads to a later version. To which one is not specified: several may be made as one.
"""

from enum import Enum
from typing import NamedTuple


class At(NamedTuple):
    """Where a sequence is.

    Attributes:
        position: Its position.
        version: The last version of it that was shown.
        is_known: Whether it still has that; if not, it has a later one.
    """

    position: int
    version: int = 0
    is_known: bool = True

    def may_have(self, version: int) -> bool:
        """Return whether this may be its version."""
        return version == self.version if self.is_known else version > self.version


State = At | None


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
        version: The only version of which it may be done; None for any.
    """

    kind: Kind
    amount: int = 0
    expected: int | None = None
    version: int | None = None


class Status(Enum):
    DONE = "done"
    START = "start"
    """There is no term before F(0); nothing has changed."""
    MISMATCH = "mismatch"
    """The sequence is at another position than the expected one; nothing has changed."""
    ABSENT = "absent"
    """There is no such sequence."""


class Answer(NamedTuple):
    """What a request is answered with.

    Attributes:
        status: Whether it was done.
        state: The state after it.
    """

    status: Status
    state: State


def answers(state: State, request: Request) -> list[Answer]:
    """Return what the request may be answered with: two things if the version is not known."""
    if request.kind is Kind.CREATE:
        if state is None:
            return [Answer(Status.DONE, At(request.amount, is_known=False))]
        return [Answer(Status.MISMATCH, state)]
    if state is None:
        return [Answer(Status.ABSENT, None)]
    mismatch = Answer(Status.MISMATCH, state)
    if request.expected not in (None, state.position):
        return [mismatch]
    if request.version is None:
        return [_done(state, request)]
    if not state.may_have(request.version):
        return [mismatch]
    done = _done(At(state.position, request.version), request)
    return [done] if state.is_known else [done, mismatch]


def _done(state: At, request: Request) -> Answer:
    match request.kind:
        case Kind.READ:
            return Answer(Status.DONE, state)
        case Kind.DELETE:
            return Answer(Status.DONE, None)
        case Kind.PUT:
            position = request.amount
        case _:
            position = state.position + request.amount
    if position < 0:
        return Answer(Status.START, state)
    return Answer(Status.DONE, At(position, state.version, is_known=False))
