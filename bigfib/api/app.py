"""The composition root: everything that answers HTTP is put together here."""

import logging
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from threading import Event
from time import perf_counter
from typing import Any, Final

import falcon
from falcon.routing import map_http_methods

from bigfib.api import problems, requests
from bigfib.api.committing import Committer, end
from bigfib.api.metrics import Metrics, Scrape
from bigfib.api.operations import Interface, Live, Ready, Stats
from bigfib.api.page import Page
from bigfib.api.representations import Answer, CommittedReply, DateHeader
from bigfib.api.request_seconds import EDGES, UNMATCHED, Kind, MeasuredBody, RequestSeconds
from bigfib.api.sequences import SequenceCollection, SequenceResource, SequenceStep
from bigfib.api.stepping import Environ, Stepping
from bigfib.api.terms import Summary, Term, TermJob, TermRange
from bigfib.batches import Batches
from bigfib.counts import Slots
from bigfib.jobs import Jobs, NotAtHand
from bigfib.numbers.fibonacci import IndexTooLarge
from bigfib.sequences import Sequences
from bigfib.state.errors import CommitFailed
from bigfib.state.store import OutcomeUnknown, Store, Unavailable

_logger = logging.getLogger(__name__)

_CROSS_SITE: Final = "cross-site"
_SAFE: Final = ("GET", "HEAD", "OPTIONS")


def create_app(
    store: Store,
    sequences: Sequences,
    jobs: Jobs,
    *,
    per_client: bool,
    batches: Batches | None = None,
    slots: Slots | None = None,
    draining: Event | None = None,
) -> "App":
    """Return the application over ``sequences``.

    Args:
        store: Where the sequences are.
        sequences: The sequences.
        jobs: Where far terms come from.
        per_client: Whether ``/api0`` gives each client a sequence of its own.
        batches: What puts steps together, if the store is one that many servers share.
        slots: Where the workers of the service count, if there are several.
        draining: What is set when the service is not to be sent requests any more.
    """
    date = DateHeader()
    committer = Committer(store)
    stepping = Stepping(sequences, CommittedReply(committer, date), per_client, batches)
    one = "/api1/sequences/{sequence_id}"
    page = Page()
    resources = {
        "/": page,
        "/page/{name}": page,
        "/openapi.json": Interface(jobs.max_term, sequences.farthest),
        "/livez": Live(),
        "/readyz": Ready(store, draining or Event()),
        "/test/stats": Stats(),
        "/api1/sequences": SequenceCollection(committer, sequences),
        one: SequenceResource(committer, sequences),
        f"{one}/next": SequenceStep(committer, sequences, 1),
        f"{one}/previous": SequenceStep(committer, sequences, -1),
        "/api1/terms": TermRange(),
        "/api1/terms/{n}": Term(jobs),
        "/api1/terms/{n}/job": TermJob(jobs),
        "/api1/terms/{n}/summary": Summary(),
    }
    seconds = RequestSeconds(
        {
            **stepping.routes,
            **{route: map_http_methods(resource) for route, resource in resources.items()},
            "/metrics": map_http_methods(Scrape),
        }
    )
    resources["/metrics"] = Scrape(Metrics(store, committer, sequences, jobs, seconds, slots))
    app = App(stepping, committer, date, seconds)
    problems.add_to(app)
    app.req_options.media_handlers = requests.json_only()
    for route, resource in resources.items():
        app.add_route(route, resource)
    return app


# Where the route of a request is left for who counts it.
_ROUTE: Final = "bigfib.route"


class PartOfRequest(Exception):
    """What bjoern hands over is no request: the whole one before it was sent without waiting.

    Of requests that it reads at once bjoern keeps the last. It answers this exception with a 500 of
    its own, which is not counted, and closes the connection.
    """


class App(falcon.App[falcon.Request, falcon.Response]):
    """A Falcon application in which the requests of ``/api0`` take a shorter way.

    See `bigfib.api.stepping` for what that gains. Every request is measured.

    Attributes:
        stepping: What answers them and where that is counted, by path and by method.
        committer: What commits what the replies show.
    """

    def __init__(
        self, stepping: Stepping, committer: Committer, date: DateHeader, seconds: RequestSeconds
    ) -> None:
        super().__init__(middleware=[_EveryReply(date), _StatedLength(), _OwnSite()])
        self.stepping: dict[str, dict[str, tuple[Callable[[Environ], Answer], Kind]]] = {
            route: {
                method: (answer, seconds.kind(route, method)) for method, answer in methods.items()
            }
            for route, methods in stepping.routes.items()
        }
        self.committer = committer
        self._changing = stepping.changing
        self._date = date
        self._seconds = seconds
        self._put_off = stepping.put_off
        self.add_sink(self._refuse, "|".join(rf"{re.escape(path)}\Z" for path in stepping.routes))

    def __call__(self, env: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer one request, as WSGI has it."""
        began = perf_counter()
        if began >= self._date.due:
            self._date.renew(began)
        # CONNECT has none.
        path = env.setdefault("PATH_INFO", "")
        methods = self.stepping.get(path)
        if methods:
            found = methods.get(env.get("REQUEST_METHOD", ""))
            # Falcon's middleware and `_refuse` answer what is to be refused.
            if (
                found
                and "HTTP_TRANSFER_ENCODING" not in env
                and (env.get("HTTP_SEC_FETCH_SITE") != _CROSS_SITE or path not in self._changing)
            ):
                answer, kind = found
                try:
                    status, headers, body = answer(env)
                except Exception as error:
                    status, headers, body = self._fail(env, error)
                start_response(status, headers)
                if body.__class__ is not list or self.committer.by_turns:
                    return self._measured(kind[status], began, body)
                # What that and `RequestSeconds.count` do, without the calls.
                where, cells, seconds = kind[status], self._seconds.cells, perf_counter() - began
                cells[where] += seconds
                cells[where + bisect_left(EDGES, seconds)] += 1
                return body
        return self._answer_by_falcon(env, start_response, began)

    def _answer_by_falcon(self, env: Environ, start_response: Any, began: float) -> Iterable[bytes]:
        if "wsgi.errors" not in env:
            raise PartOfRequest
        status = ""

        def start(status_line: str, headers: list[tuple[str, str]]) -> Any:
            nonlocal status
            status = status_line
            return start_response(status_line, headers)

        body = super().__call__(env, start)
        kind = self._seconds.kind(env[_ROUTE], env["REQUEST_METHOD"])
        return self._measured(kind[status], began, body)

    def _measured(self, where: int, began: float, body: Iterable[bytes]) -> Iterable[bytes]:
        """Return ``body``, and see to it that its request is counted.

        Args:
            where: What the request is counted as; see `RequestSeconds.kind`.
            began: When it began, by `perf_counter`.
            body: What is returned to the server.
        """
        if body.__class__ is not list:
            return MeasuredBody(body, self._seconds, where, began)
        if self.committer.by_turns:
            if not self._seconds.answered:
                self.committer.afterwards.append(self._seconds.count_answered)
            self._seconds.answered.append((where, began))
        else:
            self._seconds.count(where, perf_counter() - began)
        return body

    def _fail(self, env: Environ, error: Exception) -> Answer:
        """Answer for ``/api0`` what could not be."""
        if isinstance(error, CommitFailed):
            end(error)
        path = env["PATH_INFO"]
        if isinstance(error, NotAtHand):
            _logger.warning("%s: %s", path, error)
            return self._put_off(error.retry_after)
        if isinstance(error, IndexTooLarge):
            _logger.warning("%s: %s", path, error)
            return self._put_off(None)
        if isinstance(error, (Unavailable, OutcomeUnknown)):
            # The store has said why.
            return self._put_off(problems.RETRY_AFTER)
        _logger.error("%s", path, exc_info=error)
        return problems.failure()

    def _refuse(self, req: falcon.Request, *_: Any, **__: Any) -> None:
        req.uri_template = req.path
        _refuse_other_sites(req, changes=req.path in self._changing)
        raise falcon.HTTPMethodNotAllowed(self.stepping[req.path])


class _EveryReply:
    """What is done for all that Falcon answers.

    It says when that was, and that browsers are to take it as what it says it is.
    """

    def __init__(self, date: DateHeader) -> None:
        self._date = date

    def process_response(
        self, req: falcon.Request, resp: falcon.Response, _resource: object, _succeeded: bool
    ) -> None:
        """Add the headers to any reply, errors included, and leave its route for who counts it."""
        resp.set_header(*self._date.header)
        resp.set_header("X-Content-Type-Options", "nosniff")
        req.env[_ROUTE] = req.uri_template or UNMATCHED


class _StatedLength:
    """Refuse bodies in chunks: bjoern reads none, and takes their trailers for headers."""

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        """Refuse a request with a transfer coding, whatever it asks for.

        Raises:
            Problem: 411.
        """
        if req.get_header("Transfer-Encoding") is not None:
            raise problems.Problem(411, "Send the body with a Content-Length, not in chunks.")


class _OwnSite:
    """Refuses changes that a page of another site lets a browser ask for.

    It need only have a picture with the address of ``/api0/next``, and could step what its visitors
    alone can reach. Browsers say where a request comes from (W3C, Fetch Metadata Request Headers);
    what says nothing is no browser, or too old to tell.
    """

    def process_resource(self, req: falcon.Request, *_: object) -> None:
        """Refuse a request for what there is, whose route is known by now, or let it go on."""
        _refuse_other_sites(req)


def _refuse_other_sites(req: falcon.Request, *, changes: bool = False) -> None:
    """Refuse what a page of another site asks for, unless it is safe.

    Args:
        req: The request.
        changes: Whether any method at all may change something there.

    Raises:
        Problem: 403.
    """
    if req.get_header("Sec-Fetch-Site") == _CROSS_SITE and (changes or req.method not in _SAFE):
        raise problems.Problem(
            403,
            "A page of another site changes nothing here (Sec-Fetch-Site). Open this address "
            "itself, or ask by a program that is no browser.",
        )
