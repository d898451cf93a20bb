"""``/api1/sequences``: sequences of one's own, and the shared one.

An id is a capability: whoever knows it may step the sequence, and nothing lists them. The position
is the ``ETag``, so that a change with ``If-Match`` is made at most once however often it is sent.
"""

import falcon
from gmpy2 import mpz

from bigfib.api import requests
from bigfib.api.problems import Problem
from bigfib.api.representations import CommittedSequence, commit
from bigfib.numbers.decimals import StartOfSequence
from bigfib.sequences import (
    SHARED,
    Sequence,
    Sequences,
    format_id,
    parse_id,
    parse_position,
    require_steps,
)
from bigfib.state.store import Elsewhere, Store


class SequenceCollection:
    """``/api1/sequences``."""

    def __init__(self, store: Store, sequences: Sequences) -> None:
        self._sequences = sequences
        self._show = CommittedSequence(store)

    def on_post(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Create a sequence at 0."""
        requests.parameters(req)
        sequence = self._sequences.create()
        resp.status = falcon.HTTP_201
        resp.location = f"/api1/sequences/{format_id(sequence.id)}"
        self._show(resp, sequence)


class _OneSequence:
    """What the resources of one sequence have in common."""

    def __init__(self, store: Store, sequences: Sequences) -> None:
        self._store = store
        self._sequences = sequences
        self._show = CommittedSequence(store)

    def _existing(self, sequence_id: str) -> Sequence:
        return self._sequences.existing(parse_id(sequence_id))

    def _expected(self, req: falcon.Request, sequence_id: bytes) -> int | None:
        """Return the only position from which the request lets the sequence change, or None."""
        header = req.get_header("If-Match")
        if header is None:
            return None
        position = self._sequences.position(sequence_id)
        if header.strip() == "*":
            return None  # Anywhere, as long as it is there.
        self._require_match(req, position)
        return position

    def _require_match(self, req: falcon.Request, position: int) -> None:
        if not requests.meets_if_match(req, str(position)):
            commit(self._store, self._store.end)
            raise _moved(position)


def _moved(position: int) -> Problem:
    return _unchanged(412, position, "the sequence is not where If-Match has it")


def _unchanged(status: int, position: int, what: str) -> Problem:
    """Return an error that gives away where the sequence stands, which is committed."""
    return Problem(
        status,
        f"Nothing has changed: {what}; it is at position {position}.",
        headers={"ETag": f'"{position}"'},
        position=str(position),
    )


class SequenceResource(_OneSequence):
    """``/api1/sequences/{sequence_id}``."""

    def on_get(self, req: falcon.Request, resp: falcon.Response, sequence_id: str) -> None:
        """Show the sequence, or that the client has seen it as it is."""
        requests.parameters(req)
        sequence = self._existing(sequence_id)
        self._require_match(req, sequence.pair.position)
        if requests.is_known(req, str(sequence.pair.position)):
            self._show.head(resp, sequence)
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
        # Not its term: whoever leaves a far position need not wait for it.
        self._sequences.position(one)
        position = _position(requests.document(req))
        expected = self._expected(req, one)
        try:
            self._show(resp, self._sequences.seek(one, int(position), expected))
        except Elsewhere as moved:
            raise _moved(moved.position) from None

    def on_delete(self, req: falcon.Request, resp: falcon.Response, sequence_id: str) -> None:
        """Delete the sequence."""
        requests.parameters(req)
        one = parse_id(sequence_id)
        self._sequences.position(one)
        if one == SHARED:
            raise falcon.HTTPMethodNotAllowed(
                ["GET", "HEAD", "PUT"],
                description="The shared sequence is not deleted; it may be PUT at position 0.",
            )
        expected = self._expected(req, one)
        try:
            commit(self._store, self._sequences.delete(one, expected))
        except Elsewhere as moved:
            raise _moved(moved.position) from None
        resp.status = falcon.HTTP_204


class SequenceStep(_OneSequence):
    """``/api1/sequences/{sequence_id}/next``, and ``previous``."""

    def __init__(self, store: Store, sequences: Sequences, direction: int) -> None:
        """Step by so many terms, or as many times of that as ``by`` says."""
        super().__init__(store, sequences)
        self._direction = direction

    def on_post(self, req: falcon.Request, resp: falcon.Response, sequence_id: str) -> None:
        """Step the sequence."""
        steps = require_steps(requests.number(requests.parameters(req, "by"), "by", 1))
        by = int(self._direction * steps)
        one = parse_id(sequence_id)
        expected = self._expected(req, one)
        try:
            self._show(resp, self._sequences.step(one, by, expected))
        except Elsewhere as moved:
            raise _moved(moved.position) from None
        except StartOfSequence:
            position = self._sequences.position(one)
            commit(self._store, self._store.end)
            raise _unchanged(409, position, "there is no term before F(0)") from None


def _position(document: object) -> mpz:
    text = document.get("position") if isinstance(document, dict) else None
    if not isinstance(text, str):
        raise Problem(422, 'Send a document such as {"position":"1000"}, the number as a string.')
    return parse_position(text)
