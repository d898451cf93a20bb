"""Let pages of other origins read terms, if ``--cors-origin`` names them (CORS)."""

from typing import Any, Final

import falcon

_READ: Final = frozenset(
    {"/api1/terms", "/api1/terms/{n}", "/api1/terms/{n}/summary", "/api1/index"}
)
"""What they may read: nothing that has a sequence, or that is for operators."""

_METHODS: Final = ("GET", "HEAD", "OPTIONS")

# What terms have beyond the headers that pages may read anyway.
_EXPOSED: Final = (
    *("Accept-Ranges", "Content-Range", "ETag", "Link", "Location", "Repr-Digest", "Retry-After"),
    *("Server-Timing", "X-Request-Id"),
)


class CrossOriginReads(falcon.CORSMiddleware[Any, Any]):
    """Allow the origins to GET terms: one by one, in rows, residues, summaries and indices."""

    def __init__(self, origins: str) -> None:
        """Allow the ``origins``, which are separated by commas; ``*`` is any."""
        super().__init__("*" if origins == "*" else origins.split(","), _EXPOSED)

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, resource: object, req_succeeded: bool
    ) -> None:
        """Add the headers of CORS to the reply, and answer a preflight."""
        if req.uri_template not in _READ or req.method not in _METHODS:
            return
        # Caches must not show one origin, or all, the reply to another, or to none.
        resp.append_header("Vary", "Origin")
        super().process_response(req, resp, resource, req_succeeded)
        if resp.get_header("Access-Control-Allow-Methods"):
            resp.set_header("Access-Control-Allow-Methods", "GET, HEAD")
