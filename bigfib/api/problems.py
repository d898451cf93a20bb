"""Turn errors into problem documents (RFC 9457): each `Problem`, the domain's, and Falcon's.

An error has the type ``application/problem+json`` whatever ``Accept`` says: even to a client that
cannot parse it, a reason is more useful than an empty body.
"""

import json
import logging
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import falcon

from bigfib.api.commit import stop_process
from bigfib.jobs import InProgress, TermNotReady
from bigfib.metrics import UNMATCHED
from bigfib.numbers.fibonacci import IndexTooLarge, InvalidIndex, InvalidValue
from bigfib.sequences import TooManySequences, UnknownSequence
from bigfib.state.store import CommitFailed, NoRoom, OutcomeUnknown, SequenceLocked, Unavailable
from bigfib.terms import InvalidModulus

_logger = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

RETRY_AFTER: Final = 1
"""Seconds after which to try again when the store was out of reach."""


TITLES: Final = {
    "malformed": "The request is malformed",
    "limit": "Beyond a limit",
    "unknown-sequence": "There is no such sequence",
    "not-a-term": "Not a Fibonacci number",
    "start": "Before the start of the sequence",
    "moved": "A condition is not met",
    "misdirected": "Not a name of this service",
    "busy": "Not now",
    "unknown-outcome": "The outcome is unknown",
    "full": "There is no room",
}
"""The title of each kind of problem. The type of a problem is `_TYPE` followed by its kind."""

_TYPE: Final = "urn:bigfib:problem:"

# The kind of a problem that names none, by status. Problems with other statuses have no kind: their
# title is HTTP's reason phrase, which says it all.
_KINDS: Final = {
    400: "malformed",
    409: "start",
    412: "moved",
    413: "limit",
    421: "misdirected",
    422: "malformed",
    503: "busy",
    507: "full",
}


class Problem(falcon.HTTPError):
    """An error with a detail of its own, and perhaps additional members."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        kind: str = "",
        headers: dict[str, str] | None = None,
        **members: object,
    ) -> None:
        """Describe what is wrong with this request and what to do; add ``members``.

        ``kind`` is one of `TITLES`, by default what the status commonly means.
        """
        super().__init__(status, description=detail, headers=headers)
        self.kind = kind
        self.members = members


class Draining(Exception):
    """Clients must not send this service any more requests."""


class CreationUnknown(Exception):
    """The store was lost while a sequence was being created."""


class _Row(NamedTuple):
    """The problem that an exception becomes.

    Attributes:
        status: The HTTP status.
        detail: The detail, in which ``{error}`` is the exception.
        headers: Headers of the reply; their values may contain ``{error}``, too.
        kind: As in `Problem`.
        log: Whether to log the exception, which only operators may see.
    """

    status: int
    detail: str
    headers: Mapping[str, str] = {}
    kind: str = ""
    log: bool = False


_SOON: Final = {"Retry-After": str(RETRY_AFTER)}
_NOT_READY: Final = {"Retry-After": "{error.retry_after}"}
_TRY_AGAIN: Final = "{error}. Nothing has changed; try again in {error.retry_after} s."

_PROBLEMS: Final[dict[type[Exception], _Row]] = {
    InvalidIndex: _Row(422, "{error}"),
    InvalidModulus: _Row(422, "{error}"),
    InvalidValue: _Row(422, "{error}"),
    IndexTooLarge: _Row(422, "{error}", kind="limit"),
    UnknownSequence: _Row(
        404,
        "There is no such sequence: it was never created, has been deleted, or nobody has stepped "
        "it for too long. POST /api1/sequences creates one, and so does PUT with If-None-Match: *.",
        kind="unknown-sequence",
    ),
    TooManySequences: _Row(507, "{error}"),
    NoRoom: _Row(
        507, "The service has no space left to store this; nothing has changed.", log=True
    ),
    TermNotReady: _Row(503, _TRY_AGAIN, _NOT_READY),
    InProgress: _Row(
        503,
        _TRY_AGAIN,
        {**_NOT_READY, "Link": '</api1/terms/{error.job.n}/job>; rel="monitor"'},
    ),
    Unavailable: _Row(
        503,
        f"The store is unavailable now; nothing has changed. Try again in {RETRY_AFTER} s.",
        _SOON,
    ),
    SequenceLocked: _Row(
        503,
        "This sequence is locked in the store by another transaction. Nothing has changed, so it "
        f"is safe to send the same request again in {RETRY_AFTER} s.",
        _SOON,
    ),
    OutcomeUnknown: _Row(
        503,
        "The connection to the store was lost during the change, so it is unknown whether the "
        "change was made. Get the sequence before you change it again. A request with its ETag in "
        "If-Match is safe to send again as it was: its change is made at most once.",
        _SOON,
        kind="unknown-outcome",
    ),
    CreationUnknown: _Row(
        503,
        "The connection to the store was lost during the creation, so it is unknown whether "
        "the sequence was created. Send this again: it is safe. A PUT creates it once, and what a "
        "POST has created expires unless somebody knows its id.",
        _SOON,
        kind="unknown-outcome",
    ),
    Draining: _Row(
        503, f"Not ready: {{error}}. Try another server, or this one in {RETRY_AFTER} s.", _SOON
    ),
}

# Details of Falcon's own errors, by status.
_ADVICE: Final = {
    404: "There is nothing at {path}; /openapi.json lists what there is.",
    405: "{path} does not take {method}; see the Allow header for what it takes.",
    500: "The service failed; its standard error has the reason.",
}


def add_to(app: falcon.App[Any, Any]) -> None:
    """Have ``app`` answer every error with a problem document."""
    app.set_error_serializer(_serialize)
    for kind, row in _PROBLEMS.items():
        app.add_error_handler(kind, partial(_answer, row))
    app.add_error_handler(CommitFailed, _stop)
    app.add_error_handler(Exception, _fail)


def _serialize(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    status = falcon.util.code_to_http_status(error.status)
    code, _, title = status.partition(" ")
    advice = _ADVICE.get(int(code), "")
    # A path may be very long; its beginning is enough to recognise it.
    detail = error.description or advice.format(path=req.path[:200], method=req.method)
    kind = getattr(error, "kind", "") or _KINDS.get(int(code), "")
    problem = {
        "type": f"{_TYPE}{kind}" if kind else "about:blank",
        "title": TITLES.get(kind, title),
        "status": int(code),
        # The domain's messages are not full sentences.
        "detail": f"{detail[:1].upper()}{detail[1:].removesuffix('.')}.",
    }
    resp.content_type = MEDIA_TYPE
    # This also replaces the lifetime of the representation that was asked for.
    resp.set_header("Cache-Control", "no-store")
    resp.data = json.dumps(problem | getattr(error, "members", {})).encode()


def _answer(row: _Row, _req: object, _resp: object, error: Exception, _params: object) -> None:
    if row.log:
        _logger.error("%s; nothing has changed", error)
    headers = {name: value.format(error=error) for name, value in row.headers.items()}
    detail = row.detail.format(error=error)
    raise Problem(row.status, detail, kind=row.kind, headers=headers) from error


def _stop(_req: object, _resp: object, error: CommitFailed, _params: object) -> None:
    stop_process(error)


def _fail(req: falcon.Request, _resp: object, error: Exception, _params: object) -> None:
    # Not the path: it may hold an id, and may differ each time.
    _logger.error("%s", req.uri_template or UNMATCHED, exc_info=error)
    raise falcon.HTTPInternalServerError from error
