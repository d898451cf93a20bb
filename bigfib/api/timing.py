"""Report how long a reply took, if the request has ``Prefer: timing`` (RFC 7240).

The reply has ``Server-Timing`` (W3C) with the milliseconds of three phases: ``commit``, waiting for
the store; ``text``, converting terms into digits; ``compute``, all the rest until the reply begins.
Such a request commits at once, and waits for no later one. Replies of ``/api0`` have none of
this, except its refusals.
"""

import re
from collections.abc import Callable
from time import perf_counter
from typing import Final

import falcon

from bigfib.api.commit import Committer
from bigfib.terms import CONVERSION

PREFER: Final = "HTTP_PREFER"

# bjoern joins several lines without a comma.
_TIMING: Final = re.compile(r"(?:^|[\s,])timing(?:$|[\s,;])", re.IGNORECASE)


class Timing:
    """Measure one request at a time, if it has the header `PREFER`."""

    def __init__(self, committer: Committer, commit_seconds: Callable[[], float]) -> None:
        """``commit_seconds`` returns the seconds of all commits so far."""
        self._committer = committer
        self._commit_seconds = commit_seconds
        self._began = 0.0
        self._committing = 0.0

    def begin(self, req: falcon.Request) -> None:
        """Begin to measure if the request asks for it; let it commit before its reply begins."""
        if not _TIMING.search(req.env[PREFER]):
            return
        self._committer.begin_at_once()
        self._committing = self._commit_seconds()
        CONVERSION.seconds = 0.0
        self._began = perf_counter()

    def end(self, resp: falcon.Response) -> None:
        """Add what was measured, if anything was, to the headers."""
        if CONVERSION.seconds is None:
            return
        self._committer.end_at_once()
        phases = {"commit": self._commit_seconds() - self._committing, "text": CONVERSION.seconds}
        phases["compute"] = perf_counter() - self._began - sum(phases.values())
        CONVERSION.seconds = None
        resp.set_header(
            "Server-Timing",
            ", ".join(f"{name};dur={1000 * seconds:.3f}" for name, seconds in phases.items()),
        )
