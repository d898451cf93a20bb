"""Resources for operators: health, metrics, memory, and the OpenAPI document."""

import json
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from threading import Event
from typing import Final

import falcon
from prometheus_client import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

import bigfib
from bigfib.api.commit import Committer
from bigfib.api.problems import RETRY_AFTER, Draining
from bigfib.api.representations import JSON
from bigfib.metrics import Metrics
from bigfib.sequences import SHARED, Sequences
from bigfib.state.store import CommitFailed, NoRoom, OutcomeUnknown, Store, Unavailable

_STATUS: Final = Path("/proc/self/status")


def _say(resp: falcon.Response, line: str) -> None:
    resp.content_type = falcon.MEDIA_TEXT
    resp.cache_control = ["no-store"]
    resp.text = line


class Health:
    """Run health checks.

    ``?verbose`` shows the result of each check in a line. Other parameters are ignored: some probes
    send their own.
    """

    def __init__(self, word: str, **checks: Callable[[], object]) -> None:
        """Reply with ``word`` unless one of ``checks`` raises an exception."""
        self._word = word
        self._checks = checks

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Send the word if all checks pass, and 503 otherwise."""
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
                # The error may name the store's host, so it goes to standard error only.
                reason = error if isinstance(error, Draining) else "it is unavailable"
                lines.append(f"[-] {name} failed: {reason}")
                word, resp.status = f"not {self._word}", falcon.HTTP_503
                resp.retry_after = RETRY_AFTER
            else:
                lines.append(f"[+] {name} ok")
        _say(resp, "\n".join((*lines, word, "")))

    on_head = on_get


def live() -> Health:
    """Return the resource for ``/livez``: the service answers and needs no restart."""
    return Health("live", answering=lambda: None)


def ready(store: Store, draining: Event) -> Health:
    """Return the resource for ``/readyz``: ``store`` takes changes, ``draining`` is not set."""

    def serving() -> None:
        if draining.is_set():
            raise Draining("the service is stopping")

    def takes_changes() -> None:
        try:
            store.check()
        except CommitFailed as error:
            # The next change will end the process, but this request gets an answer.
            raise Unavailable(str(error)) from error

    return Health("ready", serving=serving, store=takes_changes)


class Scrape(Collector):
    """Serve ``GET /metrics`` for Prometheus."""

    def __init__(
        self, metrics: Metrics, store: Store, committer: Committer, sequences: Sequences
    ) -> None:
        self._metrics = metrics
        self._store = store
        self._committer = committer
        self._sequences = sequences

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Show all metrics, in the format that ``Accept`` asks for: text, or OpenMetrics."""
        try:
            encode, content_type = choose_encoder(req.accept)
        except TypeError:
            # prometheus_client fails on a malformed version.
            encode, content_type = choose_encoder("")
        resp.content_type = content_type
        resp.cache_control = ["no-store"]
        resp.data = encode(self)

    on_head = on_get

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics; called by the encoder."""
        return self._metrics.collect(self._shared_position())

    def _shared_position(self) -> int | None:
        """Return the position of the shared sequence, or None if the store is out of reach."""
        # A scrape must not wait for a store that is known to be out of reach.
        if self._store.is_lost():
            return None
        try:
            self._store.check()
            position = self._sequences.position(SHARED)
        except (Unavailable, OutcomeUnknown, NoRoom, CommitFailed):
            return None
        # Commit, as before any reply with a position: a step whose client has gone may be
        # uncommitted.
        self._committer.commit()
        return position


class Stats:
    """Serve ``GET /test/stats``: memory use, in the format of the service that bigfib replaces."""

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Send the resident memory of the process, and the part of it that no file backs."""
        status = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
        total, heap = (int(status[name].split()[0]) * 1024 for name in ("VmRSS", "RssAnon"))
        _say(resp, f"Total system memory used: {total} bytes. Allocated on heap: {heap} bytes.")

    on_head = on_get


class Interface:
    """Serve ``GET /openapi.json``: the HTTP interface, from the file of that name."""

    def __init__(self, max_term: int, farthest: int) -> None:
        """Fill in the version and the limits of this service."""
        text = (resources.files("bigfib.api") / "openapi.json").read_text()
        for name, limit in {"max_term": max_term, "farthest": farthest}.items():
            # A string of nothing but the placeholder becomes a number.
            text = text.replace(f'"<{name}>"', str(limit)).replace(f"<{name}>", str(limit))
        text = text.replace("<version>", bigfib.__version__)
        self._document = json.dumps(json.loads(text)).encode()

    def on_get(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """Send the OpenAPI document."""
        resp.content_type = JSON
        resp.cache_control = ["no-cache"]
        resp.data = self._document

    on_head = on_get
