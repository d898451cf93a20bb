"""Every error that a client can meet, as a problem document (RFC 9457).

Falcon's own errors become ``application/problem+json`` whatever ``Accept`` says: a client that
asked for something else is better served by a reason than by an empty body.
"""

import falcon

_ADVICE = {
    404: "There is nothing at {path}. The service answers at /api0/current, /api0/next and "
    "/api0/previous.",
    405: "{path} does not take {method}; see the Allow header for what it takes.",
    500: "The service failed, and says why on its standard error. Nothing has changed.",
}


def serialize(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError) -> None:
    """Write ``error`` to ``resp`` as a problem document."""
    status = falcon.util.code_to_http_status(error.status)
    code, _, title = status.partition(" ")
    advice = _ADVICE.get(int(code), "")
    # A path may be of any length; enough of it to recognise it will do.
    detail = error.description or advice.format(path=req.path[:200], method=req.method)
    resp.content_type = "application/problem+json"
    resp.data = falcon.media.JSONHandler().serialize(
        {"type": "about:blank", "title": title, "status": int(code), "detail": detail},
        resp.content_type,
    )
