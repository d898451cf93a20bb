"""Serve private sequences and the shared one: ``/api1/sequences``.

An id is a capability: a client that knows it may step the sequence, and no resource lists ids. The
``ETag`` is ``"position-version"``, and each change gives it a value that it never had before. So a
change that names it in ``If-Match`` is made at most once, however often it is sent; the position
alone, ``"position"``, is a condition that may come true again. ``If-None-Match`` is a condition on
changes, too (RFC 9110, 13.2.2); PUT with `*` creates.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import falcon
from gmpy2 import mpz

from bigfib.api import requests
from bigfib.api.commit import Committer
from bigfib.api.problems import CreationUnknown, Problem
from bigfib.api.representations import JOINED_UP_TO, JSON, tag, tags
from bigfib.numbers.decimals import DecimalPair, StartOfSequence
from bigfib.numbers.fibonacci import require_steps
from bigfib.sequences import SHARED, Sequences, format_id, parse_id, parse_position
from bigfib.state.store import OutcomeUnknown, Place, PositionMismatch, SequenceExists, Unavailable
from bigfib.terms import CONVERSION

_Made = TypeVar("_Made")

# The last field takes the value and the end of the document.
_SHOWN: Final = b'{"id":"%b","position":"%d","digits":"%d","value":"%b'

# Each attempt after the first means that another client has just moved the sequence to another
# place that the conditions allow.
_ATTEMPTS: Final = 20


class _Resource:
    """Show a sequence as the document ``{"id","position","digits","value"}``.

    The sequence is committed before the reply begins: the headers have its place as ``ETag``.
    """

    def __init__(self, committer: Committer, sequences: Sequences) -> None:
        self._committer = committer
        self._sequences = sequences

    def _show(self, resp: falcon.Response, sequence_id: bytes, pair: DecimalPair) -> None:
        self._tag_after_commit(resp, pair.position, self._sequences.version(sequence_id))
        resp.content_type = JSON
        with CONVERSION:
            value = pair.digits(b'"}')
        facts = (format_id(sequence_id).encode(), pair.position, pair.digit_count)
        if len(value) <= JOINED_UP_TO:
            resp.data = _SHOWN % (*facts, value)
        else:
            opening = _SHOWN % (*facts, b"")
            resp.content_length = len(opening) + len(value)
            resp.stream = iter((opening, value))

    def _tag_after_commit(self, resp: falcon.Response, position: int, version: int | None) -> None:
        """Commit the sequence, and give ``resp`` the headers with its place.

        A 304 has no others: if it states the length of a document that does not follow, Node's
        ``fetch`` waits for that and opens another connection for the next request.
        """
        self._committer.commit()
        resp.set_headers((("ETag", f'"{tag(position, version)}"'), ("Cache-Control", "no-cache")))


class SequenceCollection(_Resource):
    """Serve ``/api1/sequences``."""

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create a sequence at position 0."""
        requests.parameters(req)
        try:
            sequence_id = self._sequences.create()
        except OutcomeUnknown as error:
            raise CreationUnknown from error
        resp.status = falcon.HTTP_201
        resp.location = f"/api1/sequences/{format_id(sequence_id)}"
        self._show(resp, sequence_id, self._sequences.at(sequence_id, 0))


class _OneSequence(_Resource):
    """Change one sequence under the conditions of a request."""

    def _change(
        self, req: falcon.Request, sequence_id: bytes, change: Callable[[Place | None], _Made]
    ) -> _Made:
        """Make a change from a place that If-Match and If-None-Match allow, or raise a 412.

        ``change`` makes it from the place that it is given, or from any if that is None. The store
        compares places when it makes the change, so that the conditions hold then.
        """
        excludes = "HTTP_IF_NONE_MATCH" in req.env
        if not excludes and req.env.get("HTTP_IF_MATCH", "*").strip() == "*":
            return change(None)  # From any place.
        # With If-Match alone, the first place is tried without a look-up: if the sequence is not
        # there, the store reports where it is.
        named = [] if excludes else requests.places_to_match(req)
        place = named[0] if named else self._allowed(req, self._sequences.place(sequence_id))
        for _ in range(_ATTEMPTS):
            try:
                return change(place)
            except PositionMismatch as mismatch:
                found = self._sequences.place_at(sequence_id, mismatch.position)
                place = self._allowed(req, found)
        raise Unavailable("other clients keep changing this sequence")

    def _allowed(self, req: falcon.Request, place: Place) -> Place:
        """Return the place if If-Match and If-None-Match allow a change from it, or raise a 412."""
        self._require_match(req, place)
        if not requests.meets_if_none_match(req, *tags(place)):
            raise self._problem_after_commit(
                412, place, "If-None-Match excludes the sequence as it is"
            )
        return place

    def _require_match(self, req: falcon.Request, place: Place) -> None:
        if not requests.meets_if_match(req, *tags(place)):
            raise self._problem_after_commit(412, place, "If-Match excludes the sequence as it is")

    def _problem_after_commit(self, status: int, place: Place, what: str) -> Problem:
        """Commit, then return an error that shows where the sequence is."""
        self._committer.commit()
        digits = tags(place)[-1]
        return Problem(
            status,
            f"Nothing has changed: {what}; it is at position {digits}.",
            headers={"ETag": f'"{tag(*place)}"'},
            position=digits,
        )


class SequenceResource(_OneSequence):
    """Serve ``/api1/sequences/{sequence_id}``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, sequence_id: str) -> None:
        """Show the sequence, or send 304 if the client has its tag."""
        requests.parameters(req)
        one = parse_id(sequence_id)
        position = self._sequences.position(one)
        if requests.is_conditional(req):
            place = self._sequences.place_at(one, position)
            self._require_match(req, place)
            if requests.is_known(req, tag(*place)):
                self._tag_after_commit(resp, *place)
                resp.status = falcon.HTTP_304
                return
        self._show(resp, one, self._sequences.at(one, position))

    on_head = on_get

    def on_put(self, req: falcon.Request, resp: falcon.Response, sequence_id: str) -> None:
        """Move the sequence to the position in the body, or create it there."""
        requests.parameters(req)
        one = parse_id(sequence_id)
        creates = req.env.get("HTTP_IF_NONE_MATCH", "").strip() == "*"
        if creates and "HTTP_IF_MATCH" not in req.env:
            self._create(req, resp, one)
            return
        position = int(_position(requests.document(req)))
        pair = self._change(
            req, one, lambda expected: self._sequences.seek(one, position, expected)
        )
        self._show(resp, one, pair)

    def _create(self, req: falcon.Request, resp: falcon.Response, sequence_id: bytes) -> None:
        """Create the sequence at the position in the body (0 without a body), or raise a 412."""
        position = int(_position(requests.document(req))) if req.content_length else 0
        try:
            pair = self._sequences.create_as(sequence_id, position)
        except SequenceExists:
            found = self._sequences.place(sequence_id)
            raise self._problem_after_commit(
                412, found, "If-None-Match excludes the sequence as it is"
            ) from None
        except OutcomeUnknown as error:
            raise CreationUnknown from error
        resp.status = falcon.HTTP_201
        resp.location = f"/api1/sequences/{format_id(sequence_id)}"
        self._show(resp, sequence_id, pair)

    def on_delete(self, req: falcon.Request, resp: falcon.Response, sequence_id: str) -> None:
        """Delete the sequence."""
        requests.parameters(req)
        one = parse_id(sequence_id)
        if one == SHARED:
            raise falcon.HTTPMethodNotAllowed(
                ["GET", "HEAD", "PUT"],
                description="The shared sequence cannot be deleted; it may be PUT at position 0.",
            )
        self._change(req, one, lambda expected: self._sequences.delete(one, expected))
        self._committer.commit()
        resp.status = falcon.HTTP_204


class SequenceStep(_OneSequence):
    """Serve ``/api1/sequences/{sequence_id}/next`` or ``previous``."""

    def __init__(self, committer: Committer, sequences: Sequences, direction: int) -> None:
        """Step forward (1) or back (-1)."""
        super().__init__(committer, sequences)
        self._direction = direction
        self._step_by_one = sequences.forward if direction > 0 else sequences.back

    def on_post(self, req: falcon.Request, resp: falcon.Response, sequence_id: str) -> None:
        """Step the sequence, by ``by`` terms at once."""
        given = requests.parameters(req, "by")
        by = self._direction
        if given:
            by *= int(require_steps(requests.number(given, "by", 1)))
        one = parse_id(sequence_id)
        try:
            if not given and not requests.is_conditional(req):
                pair = self._step_by_one(one, creates=False)
            else:
                pair = self._change(req, one, lambda place: self._sequences.step(one, by, place))
        except StartOfSequence as start:
            # Report where the step was refused, not where others may have moved the sequence since.
            place = self._sequences.place_at(one, start.position)
            raise self._problem_after_commit(409, place, str(start)) from None
        self._show(resp, one, pair)


def _position(document: object) -> mpz:
    text = document.get("position") if isinstance(document, dict) else None
    if not isinstance(text, str):
        raise Problem(422, 'Send a document such as {"position":"1000"}, the number as a string.')
    return parse_position(text)
