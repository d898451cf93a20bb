"""``/api1/sequences``: sequences of one's own, and the shared one.

An id is a capability: whoever knows it may step the sequence, and nothing lists them. The position
is the ``ETag``, so that a change with ``If-Match`` is made at most once however often it is sent.
``If-None-Match`` is a condition on changes, too (RFC 9110, 13.2.2).
"""

from collections.abc import Callable
from typing import Final, TypeVar

import falcon
from gmpy2 import mpz

from bigfib.api import requests
from bigfib.api.committing import Committer
from bigfib.api.problems import Problem, for_a_while
from bigfib.api.representations import CommittedSequence
from bigfib.current_terms import Sequence
from bigfib.numbers.decimals import StartOfSequence
from bigfib.sequences import (
    SHARED,
    Sequences,
    format_id,
    parse_id,
    parse_position,
    require_steps,
)
from bigfib.state.store import OutcomeUnknown, PositionMismatch, Unavailable

_Made = TypeVar("_Made")

# Each after the first means that others were faster, and led it to where it may be changed, too.
_ATTEMPTS: Final = 20


class SequenceCollection:
    """``/api1/sequences``."""

    def __init__(self, committer: Committer, sequences: Sequences) -> None:
        self._sequences = sequences
        self._show = CommittedSequence(committer)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create a sequence at 0."""
        requests.parameters(req)
        try:
            sequence = self._sequences.create()
        except OutcomeUnknown as error:
            raise for_a_while(
                "The store was lost while the sequence was created, so that it is unknown whether "
                "it was. Send this again to have another. If the first is there nobody knows its "
                "id, so that nobody steps it, and it is forgotten as all such are."
            ) from error
        resp.status = falcon.HTTP_201
        resp.location = f"/api1/sequences/{format_id(sequence.id)}"
        self._show(resp, sequence)


class _OneSequence:
    """What the resources of one sequence have in common."""

    def __init__(self, committer: Committer, sequences: Sequences) -> None:
        self._committer = committer
        self._sequences = sequences
        self._show = CommittedSequence(committer)

    def _existing(self, sequence_id: str) -> Sequence:
        return self._sequences.existing(parse_id(sequence_id))

    def _change(
        self, req: falcon.Request, sequence_id: bytes, change: Callable[[int | None], _Made]
    ) -> _Made:
        """Make a change from a position that If-Match and If-None-Match allow.

        The store compares positions when it makes the change, so that the conditions hold then.

        Args:
            req: The request.
            sequence_id: The sequence to change.
            change: Makes the change; takes the only position to make it from, or None for any.

        Raises:
            Problem: 412, the conditions do not allow a change at the sequence's position.
        """
        excludes = req.get_header("If-None-Match") is not None
        if not excludes and req.get_header("If-Match", default="*").strip() == "*":
            return change(None)  # Anywhere, as long as it is there.
        # Of If-Match alone the first position is tried without a look-up: the store says if it is
        # another.
        named = [] if excludes else requests.positions_to_match(req)
        expected = named[0] if named else self._sequences.position(sequence_id)
        for _ in range(_ATTEMPTS):
            self._require_match(req, expected)
            if not requests.meets_if_none_match(req, mpz(expected).digits()):
                raise self._unchanged(412, expected, "If-None-Match excludes where it is")
            try:
                return change(expected)
            except PositionMismatch as mismatch:
                expected = mismatch.position
        raise Unavailable("others change this sequence all the while")

    def _require_match(self, req: falcon.Request, position: int) -> None:
        if not requests.meets_if_match(req, mpz(position).digits()):
            raise self._unchanged(412, position, "the sequence is not where If-Match has it")

    def _unchanged(self, status: int, position: int, what: str) -> Problem:
        """Return an error that gives away where the sequence stands, once that is committed."""
        self._committer.commit()
        digits = mpz(position).digits()
        return Problem(
            status,
            f"Nothing has changed: {what}; it is at position {digits}.",
            headers={"ETag": f'"{digits}"'},
            position=digits,
        )


class SequenceResource(_OneSequence):
    """``/api1/sequences/{sequence_id}``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, sequence_id: str) -> None:
        """Show the sequence, or that the client has seen it as it is."""
        requests.parameters(req)
        sequence = self._existing(sequence_id)
        self._require_match(req, sequence.pair.position)
        if requests.is_known(req, str(sequence.pair.position)):
            self._show.unchanged(resp, sequence)
            resp.status = falcon.HTTP_304
        elif req.method == "HEAD":
            self._show.head(resp, sequence)
        else:
            self._show(resp, sequence)

    on_head = on_get

    def on_put(self, req: falcon.Request, resp: falcon.Response, sequence_id: str) -> None:
        """Put the sequence at another position."""
        requests.parameters(req)
        one = parse_id(sequence_id)
        position = int(_position(requests.document(req)))
        self._show(
            resp,
            self._change(req, one, lambda expected: self._sequences.seek(one, position, expected)),
        )

    def on_delete(self, req: falcon.Request, resp: falcon.Response, sequence_id: str) -> None:
        """Delete the sequence."""
        requests.parameters(req)
        one = parse_id(sequence_id)
        if one == SHARED:
            raise falcon.HTTPMethodNotAllowed(
                ["GET", "HEAD", "PUT"],
                description="The shared sequence is not deleted; it may be PUT at position 0.",
            )
        self._change(req, one, lambda expected: self._sequences.delete(one, expected))
        self._committer.commit()
        resp.status = falcon.HTTP_204


class SequenceStep(_OneSequence):
    """``/api1/sequences/{sequence_id}/next``, and ``previous``."""

    def __init__(self, committer: Committer, sequences: Sequences, direction: int) -> None:
        """Step by so many terms, or as many times of that as ``by`` says."""
        super().__init__(committer, sequences)
        self._direction = direction

    def on_post(self, req: falcon.Request, resp: falcon.Response, sequence_id: str) -> None:
        """Step the sequence."""
        steps = require_steps(requests.number(requests.parameters(req, "by"), "by", 1))
        by = int(self._direction * steps)
        one = parse_id(sequence_id)
        try:
            sequence = self._change(
                req, one, lambda expected: self._sequences.step(one, by, expected)
            )
        except StartOfSequence:
            position = self._sequences.position(one)
            raise self._unchanged(409, position, "there is no term before F(0)") from None
        self._show(resp, sequence)


def _position(document: object) -> mpz:
    text = document.get("position") if isinstance(document, dict) else None
    if not isinstance(text, str):
        raise Problem(422, 'Send a document such as {"position":"1000"}, the number as a string.')
    return parse_position(text)
