"""Let pages of other origins read terms, if ``--cors-origin`` names them (CORS)."""

from typing import Any, Final

import falcon

_READ: Final = frozenset(
    {"/api1/terms", "/api1/terms/{n}", "/api1/terms/{n}/summary", "/api1/index"}
)
"""What these pages may read: nothing about sequences, and nothing for operators."""

_METHODS: Final = ("GET", "HEAD", "OPTIONS")

# Headers of terms, besides those that pages may read anyway.
_EXPOSED: Final = (
    *("Accept-Ranges", "Content-Range", "ETag", "Link", "Location", "Repr-Digest", "Retry-After"),
    *("Server-Timing", "X-Request-Id"),
)


class CrossOriginReads(falcon.CORSMiddleware[Any, Any]):
    """Allow the origins to GET terms, consecutive terms, residues, summaries and indices."""

    def __init__(self, origins: str) -> None:
        """Allow the ``origins``, which are separated by commas; ``*`` allows any."""
        super().__init__("*" if origins == "*" else origins.split(","), _EXPOSED)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        """Add the headers of CORS to the reply, and answer a preflight."""
        if req.uri_template not in _READ or req.method not in _METHODS:
            return
        # A cache must not answer one origin, or a request without one, with the reply to another.
        resp.append_header("Vary", "Origin")
        super().process_response(req, resp, resource, req_succeeded)
        if resp.get_header("Access-Control-Allow-Methods"):
            resp.set_header("Access-Control-Allow-Methods", "GET, HEAD")
