"""Compose the application: collaborators in, a WSGI application out."""

from threading import Event

import falcon
from falcon.routing import map_http_methods

from bigfib.api import problems
from bigfib.api.commit import Committer
from bigfib.api.cross_origin import CrossOriginReads
from bigfib.api.front import Front
from bigfib.api.hosts import Hosts
from bigfib.api.operations import Interface, Scrape, Stats, live, ready
from bigfib.api.page import page, reference
from bigfib.api.ranges import TermRange
from bigfib.api.representations import ValueReply
from bigfib.api.sequence_resources import SequenceCollection, SequenceResource, SequenceStep
from bigfib.api.step_queue import StepQueue
from bigfib.api.stepping import Stepping
from bigfib.api.term_resources import Index, Summary, Term, TermJob
from bigfib.api.timing import Timing
from bigfib.jobs import Jobs
from bigfib.metrics import Metrics, RequestHistogram, SharedMemory
from bigfib.sequences import Sequences
from bigfib.state.store import Store


def create_app(
    store: Store,
    sequences: Sequences,
    jobs: Jobs,
    *,
    per_client: bool,
    worker_memory: SharedMemory | None = None,
    draining: Event | None = None,
    hosts: Hosts | None = None,
    cors_origin: str = "",
) -> Front:
    """Return the application over the sequences in a store.

    ``per_client`` makes the sequences of ``/api0`` private; workers count in ``worker_memory``;
    ``draining`` is set when the service stops. Only requests for ``hosts``, by default any, are
    answered. Pages of ``cors_origin`` may read terms.
    """
    draining = draining or Event()
    hosts = Hosts() if hosts is None else hosts
    committer = Committer(store)
    queue = StepQueue(sequences, store.shared) if store.shared else None
    stepping = Stepping(sequences, ValueReply(committer), per_client, queue)
    resources = _resources(store, committer, sequences, jobs, draining)
    measured = RequestHistogram(
        {
            **stepping.routes,
            **{route: map_http_methods(resource) for route, resource in resources.items()},
            "/metrics": map_http_methods(Scrape),
        }
    )
    metrics = Metrics(store, sequences, jobs, measured, worker_memory)
    resources["/metrics"] = Scrape(metrics, store, committer, sequences)
    timing = Timing(committer, metrics.commit_seconds)
    routed = falcon.App(middleware=[CrossOriginReads(cors_origin)] if cors_origin else None)
    problems.add_to(routed)
    for route, resource in resources.items():
        routed.add_route(route, resource)
    return Front(stepping, routed, committer, measured, draining, hosts, timing)


def _resources(
    store: Store, committer: Committer, sequences: Sequences, jobs: Jobs, draining: Event
) -> dict[str, object]:
    """Return the resources that Falcon serves, by route; ``/metrics`` comes later."""
    start_page, docs = page(), reference()
    one = "/api1/sequences/{sequence_id}"
    return {
        "/": start_page,
        "/page/{name}": start_page,
        "/docs": docs,
        "/docs/{name}": docs,
        "/livez": live(),
        "/readyz": ready(store, draining),
        "/test/stats": Stats(),
        "/openapi.json": Interface(jobs.max_term, sequences.farthest),
        "/api1/sequences": SequenceCollection(committer, sequences),
        one: SequenceResource(committer, sequences),
        f"{one}/next": SequenceStep(committer, sequences, 1),
        f"{one}/previous": SequenceStep(committer, sequences, -1),
        "/api1/index": Index(jobs),
        "/api1/terms": TermRange(),
        "/api1/terms/{n}": Term(jobs),
        "/api1/terms/{n}/job": TermJob(jobs),
        "/api1/terms/{n}/summary": Summary(),
    }
