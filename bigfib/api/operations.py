"""What operators ask: how the service is, and what it does."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event
from typing import Final

import falcon

from bigfib.api import openapi
from bigfib.api.problems import RETRY_AFTER, Draining
from bigfib.api.representations import JSON
from bigfib.state.errors import CommitFailed
from bigfib.state.store import NoRoom, OutcomeUnknown, Store, Unavailable

_STATUS: Final = Path("/proc/self/status")


def _say(resp: falcon.Response, line: str) -> None:
    resp.content_type = falcon.MEDIA_TEXT
    resp.cache_control = ["no-store"]
    resp.text = line


class _Health:
    """What is well or not.

    ``?verbose`` shows each check in a line, also when one fails. What is not known is ignored:
    probes are of many kinds.
    """

    def __init__(self, word: str, checks: Mapping[str, Callable[[], object]]) -> None:
        """Check.

        Args:
            word: What is said if all is well.
            checks: What raises an exception if something is not.
        """
        self._word = word
        self._checks = checks

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Say whether all is well."""
        if "verbose" not in req.params:
            for check in self._checks.values():
                check()
            _say(resp, self._word)
            return
        lines, word = [], self._word
        for name, check in self._checks.items():
            try:
                check()
            except (Draining, Unavailable, OutcomeUnknown, NoRoom) as error:
                # Where the store is, is said on standard error.
                reason = error if isinstance(error, Draining) else "it cannot be asked"
                lines.append(f"[-] {name} failed: {reason}")
                word, resp.status = f"not {self._word}", falcon.HTTP_503
                resp.retry_after = RETRY_AFTER
            else:
                lines.append(f"[+] {name} ok")
        _say(resp, "\n".join((*lines, word, "")))

    on_head = on_get


class Live(_Health):
    """``/livez``: the service answers, and need not be restarted."""

    def __init__(self) -> None:
        super().__init__("live", {"answering": lambda: None})


class Ready(_Health):
    """``/readyz``: the service can take changes, and may be sent requests."""

    def __init__(self, store: Store, draining: Event) -> None:
        """Be ready while ``store`` is, and until ``draining`` is set."""

        def serving() -> None:
            if draining.is_set():
                raise Draining("the service is stopping")

        def takes_changes() -> None:
            try:
                store.check()
            except CommitFailed as error:
                # The next change ends the process; this has an answer.
                raise Unavailable(str(error)) from error

        super().__init__("ready", {"serving": serving, "store": takes_changes})


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
