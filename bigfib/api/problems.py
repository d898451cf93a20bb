"""Every error that a client can meet, as a problem document (RFC 9457).

Falcon's own errors become ``application/problem+json`` whatever ``Accept`` says: a client that
asked for something else is better served by a reason than by an empty body.
"""

import json
import logging
from typing import Any, Final

import falcon

from bigfib.api.committing import end
from bigfib.api.request_seconds import UNMATCHED
from bigfib.jobs import NotAtHand, Underway
from bigfib.numbers.fibonacci import IndexTooLarge, InvalidIndex
from bigfib.sequences import TooManySequences, UnknownSequence
from bigfib.state.errors import CommitFailed
from bigfib.state.store import NoRoom, OutcomeUnknown, SequenceLocked, Unavailable
from bigfib.terms import InvalidModulus

_logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

RETRY_AFTER: Final = 1
"""Seconds after which a store that could not be asked is worth another try."""

_NOT_KEPT: Final = ("Cache-Control", "no-store")

_ADVICE = {
    404: "There is nothing at {path}; /openapi.json says what there is.",
    405: "{path} does not take {method}; see the Allow header for what it takes.",
    500: "The service failed, and says why on its standard error.",
}


class Problem(falcon.HTTPError):
    """An error that says more than what is common to all."""

    def __init__(
        self, status: int, detail: str, *, headers: dict[str, str] | None = None, **members: str
    ) -> None:
        """Describe it.

        Args:
            status: HTTP's status.
            detail: What is wrong with this request, and what to do about it.
            headers: Headers of the reply.
            members: Members of the document besides those that all have.
        """
        super().__init__(status, description=detail, headers=headers)
        self.members = members


class Draining(Exception):
    """The service is not to be sent requests any more."""


def for_a_while(detail: str) -> Problem:
    """Return the `503` of what mends itself within `RETRY_AFTER` seconds or so."""
    return Problem(503, detail, headers={"Retry-After": str(RETRY_AFTER)})


def add_to(app: falcon.App[Any, Any]) -> None:
    """Let all errors that ``app`` answers be problem documents."""
    app.set_error_serializer(_serialize)
    for kind in (InvalidIndex, InvalidModulus, IndexTooLarge):
        app.add_error_handler(kind, _refuse_number)
    app.add_error_handler(UnknownSequence, _deny_sequence)
    app.add_error_handler(TooManySequences, _refuse_sequence)
    app.add_error_handler(NoRoom, _lack_room)
    app.add_error_handler(CommitFailed, _end)
    app.add_error_handler(Unavailable, _lack_store)
    app.add_error_handler(SequenceLocked, _find_locked)
    app.add_error_handler(Draining, _turn_away)
    app.add_error_handler(OutcomeUnknown, _lose_outcome)
    app.add_error_handler(NotAtHand, _put_off)
    app.add_error_handler(Exception, _fail)


def failure() -> tuple[str, list[tuple[str, str]], list[bytes]]:
    """Return the answer of WSGI to a request that an unforeseen error has ended."""
    document = _document("Internal Server Error", 500, _ADVICE[500])
    headers = [
        ("Content-Type", MEDIA_TYPE),
        ("Content-Length", str(len(document))),
        _NOT_KEPT,
    ]
    return "500 Internal Server Error", headers, [document]


def _serialize(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    status = falcon.util.code_to_http_status(error.status)
    code, _, title = status.partition(" ")
    advice = _ADVICE.get(int(code), "")
    # A path may be of any length; enough of it to recognise it will do.
    detail = error.description or advice.format(path=req.path[:200], method=req.method)
    resp.content_type = MEDIA_TYPE
    # Also in place of the lifetime that what was asked for would have had.
    resp.set_header(*_NOT_KEPT)
    resp.data = _document(title, int(code), detail, getattr(error, "members", {}))


def _document(title: str, code: int, detail: str, members: dict[str, str] | None = None) -> bytes:
    problem = {"type": "about:blank", "title": title, "status": code, "detail": detail}
    return json.dumps(problem | (members or {})).encode()


def _fail(req: falcon.Request, _resp: object, error: Exception, _params: object) -> None:
    # Not the path, which may hold an id, and may be another each time.
    _logger.error("%s", req.uri_template or UNMATCHED, exc_info=error)
    raise falcon.HTTPInternalServerError from error


def _refuse_number(_req: object, _resp: object, error: Exception, _params: object) -> None:
    raise falcon.HTTPUnprocessableEntity(description=str(error))


def _deny_sequence(_req: object, _resp: object, _error: Exception, _params: object) -> None:
    raise falcon.HTTPNotFound(
        description="There is no such sequence: it was never created, has been deleted, or nobody "
        "has stepped it for too long. POST /api1/sequences creates one."
    )


def _refuse_sequence(_req: object, _resp: object, error: Exception, _params: object) -> None:
    raise Problem(507, str(error))


def _put_off(_req: object, _resp: object, error: NotAtHand, _params: object) -> None:
    headers = {"Retry-After": str(error.retry_after)}
    if isinstance(error, Underway):
        headers["Link"] = f'</api1/terms/{error.job.n}/job>; rel="monitor"'
    raise Problem(
        503,
        f"{error}. Nothing has changed; try again in {error.retry_after} s.",
        headers=headers,
    )


def _lack_store(_req: object, _resp: object, error: Exception, _params: object) -> None:
    raise for_a_while(
        f"The store cannot be asked now; nothing has changed. Try again in {RETRY_AFTER} s."
    ) from error


def _find_locked(_req: object, _resp: object, error: Exception, _params: object) -> None:
    raise for_a_while(
        "This sequence is locked: somebody else holds it in the store. Nothing has changed, so "
        f"that it is safe to send this again as it was. Try again in {RETRY_AFTER} s."
    ) from error


def _turn_away(_req: object, _resp: object, error: Exception, _params: object) -> None:
    raise for_a_while(f"Not ready: {error}. Ask another one, or this in {RETRY_AFTER} s.")


def _lose_outcome(_req: object, _resp: object, error: Exception, _params: object) -> None:
    raise for_a_while(
        "The store was lost while the change was under way, so that it is unknown whether it was "
        "made. Ask for the sequence as it stands before you change it again. A change sent with "
        "If-Match is safe to send again as it was: it is made at most once."
    ) from error


def _end(_req: object, _resp: object, error: CommitFailed, _params: object) -> None:
    end(error)


def _lack_room(_req: object, _resp: object, error: Exception, _params: object) -> None:
    # Where the store is, is the operator's business.
    _logger.error("%s; nothing has changed", error)
    raise Problem(507, "The service has no room to keep this; nothing has changed.")
