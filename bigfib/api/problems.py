"""Every error that a client can meet, as a problem document (RFC 9457).

Falcon's own errors become ``application/problem+json`` whatever ``Accept`` says: a client that
asked for something else is better served by a reason than by an empty body.
"""

import json
from typing import Final

import falcon

_PROBLEM: Final = "application/problem+json"

_ADVICE = {
    404: "There is nothing at {path}. The service answers at /api0/current, /api0/next and "
    "/api0/previous.",
    405: "{path} does not take {method}; see the Allow header for what it takes.",
    500: "The service failed, and says why on its standard error.",
}


def serialize(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    """Write ``error`` to ``resp`` as a problem document."""
    status = falcon.util.code_to_http_status(error.status)
    code, _, title = status.partition(" ")
    advice = _ADVICE.get(int(code), "")
    # A path may be of any length; enough of it to recognise it will do.
    detail = error.description or advice.format(path=req.path[:200], method=req.method)
    resp.content_type = _PROBLEM
    resp.data = _document(title, int(code), detail)


def failure() -> tuple[str, list[tuple[str, str]], list[bytes]]:
    """Return the answer of WSGI to a request that an unforeseen error has ended."""
    document = _document("Internal Server Error", 500, _ADVICE[500])
    headers = [("Content-Type", _PROBLEM), ("Content-Length", str(len(document)))]
    return "500 Internal Server Error", headers, [document]


def _document(title: str, code: int, detail: str) -> bytes:
    problem = {"type": "about:blank", "title": title, "status": code, "detail": detail}
    return json.dumps(problem).encode()
