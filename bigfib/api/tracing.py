"""Find the ids by which clients and proxies trace a request, to return and to log them."""

import re
import secrets
from typing import Any, Final

REQUEST_ID: Final = "HTTP_X_REQUEST_ID"
TRACEPARENT: Final = "HTTP_TRACEPARENT"

# By key in the environment: the header's name, and the pattern of a valid value. Other values are
# ignored, to keep a client's long or odd text out of logs and replies. The pattern of `traceparent`
# is that of W3C Trace Context.
_IDS: Final = {
    REQUEST_ID: ("X-Request-Id", re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")),
    TRACEPARENT: (
        "traceparent",
        re.compile(
            r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}",
        ),
    ),
}


def ids(environ: dict[str, Any]) -> dict[str, str]:
    """Return the valid ids of a request, by the name of their header."""
    found = {}
    for key, (name, pattern) in _IDS.items():
        if pattern.fullmatch(environ.get(key, "")):
            found[name] = environ[key]
    return found


def draw_missing(environ: dict[str, Any]) -> None:
    """Give a request without a valid ``X-Request-Id`` a random one, which its reply returns."""
    if not _IDS[REQUEST_ID][1].fullmatch(environ.get(REQUEST_ID, "")):
        environ[REQUEST_ID] = secrets.token_hex(8)
