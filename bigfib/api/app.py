"""The composition root: everything that answers HTTP is put together here."""

import logging
import re
from collections.abc import Iterable
from typing import Any

import falcon

from bigfib.api import problems, requests
from bigfib.api.operations import Interface, Live, Ready, Stats
from bigfib.api.page import Page
from bigfib.api.representations import CommittedReply, DateHeader
from bigfib.api.sequences import SequenceCollection, SequenceResource, SequenceStep
from bigfib.api.stepping import Stepping
from bigfib.api.terms import Summary, Term, TermJob, TermRange
from bigfib.batches import Batches
from bigfib.jobs import Jobs, NotAtHand
from bigfib.numbers.fibonacci import IndexTooLarge
from bigfib.sequences import Sequences
from bigfib.state.store import OutcomeUnknown, Store, Unavailable

_logger = logging.getLogger(__name__)


def create_app(
    store: Store,
    sequences: Sequences,
    jobs: Jobs,
    *,
    per_client: bool,
    batches: Batches | None = None,
) -> "App":
    """Return the application over ``sequences``.

    Args:
        store: Where the sequences are.
        sequences: The sequences.
        jobs: Where far terms come from.
        per_client: Whether ``/api0`` gives each client a sequence of its own.
        batches: What puts steps together, if the store is one that many servers share.
    """
    date = DateHeader()
    stepping = Stepping(sequences, CommittedReply(store, date), per_client, batches)
    app = App(stepping, date)
    problems.add_to(app)
    app.req_options.media_handlers = requests.json_only()
    page = Page()
    app.add_route("/", page)
    app.add_route("/page/{name}", page)
    app.add_route("/openapi.json", Interface(jobs.max_term, sequences.farthest))
    app.add_route("/livez", Live())
    app.add_route("/readyz", Ready(store))
    app.add_route("/test/stats", Stats())
    app.add_route("/api1/sequences", SequenceCollection(store, sequences))
    one = "/api1/sequences/{sequence_id}"
    app.add_route(one, SequenceResource(store, sequences))
    app.add_route(f"{one}/next", SequenceStep(store, sequences, 1))
    app.add_route(f"{one}/previous", SequenceStep(store, sequences, -1))
    app.add_route("/api1/terms", TermRange())
    app.add_route("/api1/terms/{n}", Term(jobs))
    app.add_route("/api1/terms/{n}/job", TermJob(jobs))
    app.add_route("/api1/terms/{n}/summary", Summary())
    return app


class App(falcon.App[falcon.Request, falcon.Response]):
    """A Falcon application in which the requests of ``/api0`` take a shorter way.

    See `bigfib.api.stepping` for what that gains.
    """

    def __init__(self, stepping: Stepping, date: DateHeader) -> None:
        super().__init__(middleware=[_Dated(date)])
        self._stepping = stepping.routes
        self._put_off = stepping.put_off
        self.add_sink(
            self._refuse_method, "|".join(rf"{re.escape(path)}\Z" for path in stepping.routes)
        )

    def __call__(self, env: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answer one request, as WSGI has it."""
        # CONNECT has none.
        methods = self._stepping.get(env.setdefault("PATH_INFO", ""))
        if methods:
            answer = methods.get(env["REQUEST_METHOD"])
            if answer:
                try:
                    status, headers, body = answer(env)
                except NotAtHand as error:
                    _logger.warning("%s: %s", env["PATH_INFO"], error)
                    status, headers, body = self._put_off(error.retry_after)
                except IndexTooLarge as error:
                    _logger.warning("%s: %s", env["PATH_INFO"], error)
                    status, headers, body = self._put_off(None)
                except (Unavailable, OutcomeUnknown):
                    # The store has said why.
                    status, headers, body = self._put_off(problems.RETRY_AFTER)
                except Exception:
                    _logger.exception("%s", env["PATH_INFO"])
                    status, headers, body = problems.failure()
                start_response(status, headers)
                return body
        return super().__call__(env, start_response)

    def _refuse_method(self, req: falcon.Request, *_: Any, **__: Any) -> None:
        raise falcon.HTTPMethodNotAllowed(self._stepping[req.path])


class _Dated:
    """Puts the ``Date`` on what Falcon answers."""

    def __init__(self, date: DateHeader) -> None:
        self._date = date

    def process_response(
        self, _req: falcon.Request, resp: falcon.Response, _resource: object, _succeeded: bool
    ) -> None:
        """Add the header to any reply, errors included."""
        resp.set_header(*self._date())
