"""What operators ask: how the service is, and what it does."""

import json
from pathlib import Path
from typing import Final

import falcon

from bigfib.api import openapi
from bigfib.api.representations import JSON
from bigfib.state.store import Store

_STATUS: Final = Path("/proc/self/status")


def _say(resp: falcon.Response, line: str) -> None:
    resp.content_type = falcon.MEDIA_TEXT
    resp.cache_control = ["no-store"]
    resp.text = line


class Live:
    """``GET /livez``: the service answers, and need not be restarted."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Say so."""
        _say(resp, "live")

    on_head = on_get


class Ready:
    """``GET /readyz``: the service can take changes, and may be sent requests."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Say so, or that the store cannot be asked."""
        self._store.check()
        _say(resp, "ready")

    on_head = on_get


class Stats:
    """``GET /test/stats``: memory in use, in the words of the service that bigfib replaces."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Say how much memory the process holds, and how much of it is its own data."""
        status = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        total, heap = (int(status[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon"))
        _say(resp, f"Total system memory used: {total} bytes. Allocated on heap: {heap} bytes.")

    on_head = on_get


class Interface:
    """``GET /openapi.json``: what there is to ask for, for people and programs."""

    def __init__(self, max_term: int, farthest: int) -> None:
        self._document = json.dumps(openapi.describe(max_term, farthest)).encode()

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Show the OpenAPI document."""
        resp.content_type = JSON
        resp.cache_control = ["no-cache"]
        resp.data = self._document

    on_head = on_get
