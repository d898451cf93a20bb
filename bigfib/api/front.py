"""Answer ``/api0`` without Falcon, refuse forged requests, and measure every request.

Falcon's request and response objects cost more than all the rest of a small request: an empty
Falcon application takes 4.2 us in process, bare WSGI 0.1. (docs/architecture.md has what they cost
over a socket.) So `Stepping` answers ``/api0`` here. Falcon answers all other paths, refusals under
``/api0``, and unforeseen errors.

Three kinds of requests never reach a resource:

* **Bodies in chunks.** bjoern drops them, and takes their trailers for headers.
* **Changes requested by a page of another site.** Such a page needs only an image with the address
  of ``/api0/next``, and could step sequences that only its visitors can reach. Browsers report
  where a request comes from (W3C, Fetch Metadata Request Headers); other clients need not.
* **Requests for another host** than `Hosts` allows: a page may have its own name resolve to this
  service; a browser then takes the service for the page's own site.
"""

import re
from collections.abc import Callable, Iterable
from threading import Event
from time import perf_counter
from typing import Any, Final

import falcon

from bigfib.api.commit import Committer
from bigfib.api.hosts import Hosts
from bigfib.api.problems import Problem
from bigfib.api.representations import Answer, Body, CommonHeaders, Header
from bigfib.api.stepping import Environ, Stepping
from bigfib.api.timing import PREFER, Timing
from bigfib.metrics import UNMATCHED, Offsets, RequestHistogram

# Browsers must not sniff the content type. Replies by Falcon have this; those by `Stepping` stay as
# they were.
_NOSNIFF: Final = ("X-Content-Type-Options", "nosniff")

# Value of `Sec-Fetch-Site` if a page of another site made the browser send the request.
_CROSS_SITE: Final = "cross-site"

_SAFE: Final = ("GET", "HEAD", "OPTIONS")

# In the environment of a request: its route, as Falcon found it; the error that ended it.
_ROUTE: Final = "bigfib.route"
_ERROR: Final = "bigfib.error"


class Front:
    """The application: ``/api0`` by `Stepping`, everything else by Falcon."""

    def __init__(
        self,
        stepping: Stepping,
        routed: falcon.App[Any, Any],
        committer: Committer,
        requests: RequestHistogram,
        draining: Event,
        hosts: Hosts,
        timing: Timing,
    ) -> None:
        """Answer by ``stepping`` or ``routed``, the Falcon application; count in ``requests``.

        Replies have ``Connection: close`` once ``draining`` is set. Only requests for ``hosts`` are
        answered. Replies by Falcon have their ``timing`` if the request asks for it.
        """
        self.routed = routed
        self.committer = committer
        self._stepping = stepping
        self._requests = requests
        self._hosts = hosts
        self._common = CommonHeaders(draining.is_set)
        self._answers: dict[str, dict[str, tuple[Callable[[Environ], Answer], Offsets]]] = {
            path: {
                method: (answer, requests.offsets(path, method))
                for method, answer in methods.items()
            }
            for path, methods in stepping.routes.items()
        }
        # Offset and start time of each request whose reply has not left yet.
        self._answered: list[tuple[int, float]] = []
        routed.add_middleware(_Guard(hosts, timing))
        routed.add_sink(self._refuse, "|".join(rf"{re.escape(path)}\Z" for path in self._answers))

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer one request, as a WSGI application (PEP 3333)."""
        began = perf_counter()
        # CONNECT has no path.
        path = environ.setdefault("PATH_INFO", "")
        methods = self._answers.get(path)
        found = methods.get(environ["REQUEST_METHOD"]) if methods else None
        if (
            found is None
            or not self._hosts[environ.get("HTTP_HOST", "")]
            or "HTTP_TRANSFER_ENCODING" in environ
            or (
                environ.get("HTTP_SEC_FETCH_SITE") == _CROSS_SITE
                and path in self._stepping.changing
            )
        ):
            return self._answer_by_falcon(environ, start_response, began)
        answer, offsets = found
        try:
            status, headers, body = answer(environ)
        except Exception as error:
            environ[_ERROR] = error
            return self._answer_by_falcon(environ, start_response, began)
        headers += self._common.of(environ, began)
        start_response(status, headers)
        return self._counted(offsets[status], began, body)

    def _answer_by_falcon(
        self, environ: Environ, start_response: Any, began: float
    ) -> Iterable[bytes]:
        status = ""

        def start(status_line: str, headers: list[Header]) -> Any:
            nonlocal status
            status = status_line
            headers += self._common.of(environ, began)
            headers.append(_NOSNIFF)
            return start_response(status_line, headers)

        body = self.routed(environ, start)
        offsets = self._requests.offsets(environ[_ROUTE], environ["REQUEST_METHOD"])
        return self._counted(offsets[status], began, body)

    def _counted(self, offset: int, began: float, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return ``body``, and count its request when the server may send the last piece.

        ``offset`` is one of `RequestHistogram.offsets`; ``began`` is by `perf_counter`.
        """
        if body.__class__ is not list:
            return Body(body, lambda: self._requests.count(offset, perf_counter() - began))
        self._answered.append((offset, began))
        if len(self._answered) == 1:
            self.committer.when_replies_leave(self._count_answered)
        return body

    def _count_answered(self) -> None:
        now = perf_counter()
        for offset, began in self._answered:
            self._requests.count(offset, now - began)
        self._answered.clear()

    def _refuse(self, req: falcon.Request, *_: Any, **__: Any) -> None:
        """Refuse what `Stepping` does not answer under ``/api0``, or raise its error."""
        req.uri_template = req.path
        if _ERROR in req.env:
            raise req.env[_ERROR]
        _refuse_other_sites(req, changes=req.path in self._stepping.changing)
        raise falcon.HTTPMethodNotAllowed(self._answers[req.path])


class _Guard:
    """Refuse requests before Falcon calls a resource, and note the route of each."""

    def __init__(self, hosts: Hosts, timing: Timing) -> None:
        self._hosts = hosts
        self._timing = timing

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Refuse another host, and a body in chunks, before any other header is used."""
        if PREFER in req.env:
            self._timing.begin(req)
        host = req.env.get("HTTP_HOST", "")
        if not self._hosts[host]:
            raise Problem(
                421,
                f"This service does not answer to the name {host!r:.80}: a page may have made that "
                "name resolve to it (DNS rebinding). Use localhost or an IP address, or allow the "
                "name with --allowed-host.",
            )
        if "HTTP_TRANSFER_ENCODING" in req.env:
            raise Problem(411, "Send the body with a Content-Length, not in chunks.")

    def process_resource(self, req: falcon.Request, *_: object) -> None:
        """Refuse cross-site changes once the route is known, under which metrics count them."""
        _refuse_other_sites(req)

    def process_response(self, req: falcon.Request, resp: falcon.Response, *_: object) -> None:
        """Note the route in the environment, even if the request is refused."""
        if PREFER in req.env:
            self._timing.end(resp)
        req.env[_ROUTE] = req.uri_template or UNMATCHED


def _refuse_other_sites(req: falcon.Request, *, changes: bool = False) -> None:
    """Refuse a request that a page of another site has caused, unless it is safe.

    If it ``changes`` something, even a GET is not safe.
    """
    if req.env.get("HTTP_SEC_FETCH_SITE") == _CROSS_SITE and (changes or req.method not in _SAFE):
        raise Problem(
            403,
            "Cross-site requests may not change state (Sec-Fetch-Site): a page of another site has "
            "sent this one. Open this address directly, or use a client that is not a browser.",
        )
