"""``GET /metrics``: what Prometheus is told, put together when it asks.

Nothing here is done for a request: what has been counted is in cells (see `bigfib.counts`), and
the rest is looked up. With several workers, each of them tells the same, of all.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from math import inf
from pathlib import Path
from typing import Final

import falcon
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

import bigfib
from bigfib.api.committing import Committer
from bigfib.api.request_seconds import BOUNDS, RequestSeconds
from bigfib.counts import Counter, Gauge, Histogram, Number, Slots
from bigfib.jobs import Jobs
from bigfib.numbers.fibonacci import digit_count
from bigfib.sequences import SHARED, Sequences
from bigfib.state.errors import CommitFailed
from bigfib.state.log import Log
from bigfib.state.store import NoRoom, OutcomeUnknown, Store, Unavailable

_LABELS: Final = ("route", "method", "status")


class Metrics(Collector):
    """All that is to be told of a service."""

    def __init__(
        self,
        store: Store,
        committer: Committer,
        sequences: Sequences,
        jobs: Jobs,
        requests: RequestSeconds,
        slots: Slots | None = None,
    ) -> None:
        """Tell what these count.

        Args:
            store: Where the sequences are.
            committer: What sees to it that this is committed before it is told.
            sequences: The sequences.
            jobs: Where far terms come from.
            requests: What requests come to.
            slots: The memory of all workers, if there are several; numbers are moved there.
        """
        self._store = store
        self._committer = committer
        self._sequences = sequences
        self._jobs = jobs
        self._requests = requests
        self._slots = slots
        self._process = Gauge()
        self._process.set(os.getpid())
        # In this order they lie in the slots.
        self._cells = {
            id(number): slots.join(number) if slots else [number.cells]
            for number in self._numbers()
        }

    def _numbers(self) -> Iterable[Number]:
        yield from (self._process, self._requests)
        yield from (self._sequences.steps_forward, self._sequences.steps_back)
        yield from (self._sequences.memory, self._store.commits.seconds)
        yield self._store.commits.replies
        if isinstance(self._store, Log):
            yield self._store.rewrites
        jobs = self._jobs
        yield from (jobs.queued, jobs.running, jobs.done, jobs.failed, jobs.cancelled)
        yield from (jobs.hits, jobs.misses)

    def collect(self) -> Iterator[Metric]:
        """Yield all there is to tell, as it stands."""
        yield _info("bigfib_build_info", "What is running.", {"version": bigfib.__version__})
        yield from self._of_requests()
        yield from self._of_sequences()
        yield from self._of_store()
        yield from self._of_jobs()
        yield from self._of_processes()

    def _of_requests(self) -> Iterator[Metric]:
        count = CounterMetricFamily(
            "bigfib_http_requests_total",
            "Requests answered, by the template of their route.",
            labels=_LABELS,
        )
        seconds = HistogramMetricFamily(
            "bigfib_http_request_seconds",
            "Time from the call of the application until the reply, or the last piece of one that "
            "waits for its commit, is out of its hands.",
            labels=_LABELS,
        )
        for one in self._requests.measured(self._cells[id(self._requests)]):
            labels = (one.route, one.method, one.status)
            count.add_metric(labels, sum(one.cells[1:]))
            if one.cells[0]:
                seconds.add_metric(labels, *_buckets(BOUNDS, one.cells))
        yield from (count, seconds)

    def _of_sequences(self) -> Iterator[Metric]:
        steps = CounterMetricFamily(
            "bigfib_steps_total",
            "Steps made of any sequence, at once or one by one.",
            labels=["direction"],
        )
        steps.add_metric(["forward"], self._sum(self._sequences.steps_forward))
        steps.add_metric(["back"], self._sum(self._sequences.steps_back))
        yield steps
        yield _gauge(
            "bigfib_sequence_cache_bytes",
            "Memory that the terms of sequences take.",
            self._sum(self._sequences.memory),
        )

    def _of_store(self) -> Iterator[Metric]:
        store = self._store
        position = self._shared_position()
        if position is None:
            yield _gauge("bigfib_store_up", "Whether the store can be asked.", 0)
        else:
            yield _gauge("bigfib_store_up", "Whether the store can be asked.", 1)
            yield _gauge(
                "bigfib_shared_position",
                "Position of the shared sequence; above 2^53 rounded, from 1.8e308 on infinite.",
                _float(position),
            )
            yield _gauge(
                "bigfib_shared_digits",
                "Digits of the term there; above 2^53 rounded, from 1.8e308 on infinite.",
                _float(digit_count(position)),
            )
        yield self._histogram(
            "bigfib_commit_seconds",
            "Time of a commit: a sync of the state log, of which there are none without "
            "--durability fsync, or a transaction of the database.",
            store.commits.seconds,
        )
        yield self._histogram(
            "bigfib_commit_replies",
            "Changes that one commit has made durable; a reply waits for each.",
            store.commits.replies,
        )
        if isinstance(store, Log):
            yield _gauge("bigfib_log_bytes", "Size of the state log.", store.size)
            yield _gauge("bigfib_log_records", "Records in the state log.", store.records)
            yield _counter(
                "bigfib_log_rewrites_total",
                "How often the state log has been rewritten.",
                self._sum(store.rewrites),
            )

    def _shared_position(self) -> int | None:
        """Return where the shared sequence is, or None if the store cannot be asked."""
        # Requests are not to wait for a scrape, if that is known.
        if self._store.is_lost():
            return None
        try:
            self._store.check()
            position = self._sequences.position(SHARED)
        except (Unavailable, OutcomeUnknown, NoRoom, CommitFailed):
            return None
        # As any reply that shows it; nobody else commits the last step of clients that have gone.
        self._committer.commit()
        return position

    def _of_jobs(self) -> Iterator[Metric]:
        jobs = self._jobs
        now = GaugeMetricFamily("bigfib_jobs", "Far terms being computed.", labels=["state"])
        now.add_metric(["queued"], self._sum(jobs.queued))
        now.add_metric(["running"], self._sum(jobs.running))
        ended = CounterMetricFamily(
            "bigfib_jobs_ended_total", "Computations of far terms, by their end.", labels=["state"]
        )
        ended.add_metric(["done"], self._sum(jobs.done))
        ended.add_metric(["failed"], self._sum(jobs.failed))
        ended.add_metric(["cancelled"], self._sum(jobs.cancelled))
        yield from (now, ended)
        yield _counter(
            "bigfib_digit_cache_hits_total",
            "How often a far term that was asked for was on disk.",
            self._sum(jobs.hits),
        )
        yield _counter(
            "bigfib_digit_cache_misses_total",
            "How often it was not, and was waited for.",
            self._sum(jobs.misses),
        )
        yield _gauge(
            "bigfib_digit_cache_bytes",
            "Bytes of digits on disk, whichever service has put them there.",
            jobs.cached_bytes(),
        )

    def _of_processes(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for worker, pid in self._processes():
            # What it is told as the process is asked for at once.
            for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                kept = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    kept.add_sample(sample.name, {"worker": str(worker)}, sample.value)
        yield from families.values()
        yield from PlatformCollector(registry=None).collect()

    def _processes(self) -> Iterator[tuple[int, int]]:
        """Yield number and pid of each worker that is alive."""
        for worker, cells in enumerate(self._cells[id(self._process)]):
            pid = int(cells[0])
            if pid and Path(f"/proc/{pid}").exists():
                yield worker, pid

    def _sum(self, number: Counter | Gauge) -> float:
        """Return the sum over all workers; of what stands somewhere, over those that live."""
        cells = self._cells[id(number)]
        if isinstance(number, Gauge):
            return sum(cells[worker][0] for worker, _ in self._processes())
        return sum(one[0] for one in cells)

    def _histogram(self, name: str, meaning: str, histogram: Histogram) -> Metric:
        every = self._cells[id(histogram)]
        cells = [sum(one) for one in zip(*(cells[:] for cells in every), strict=True)]
        family = HistogramMetricFamily(name, meaning)
        family.add_metric([], *_buckets(histogram.bounds, cells))
        return family


class Scrape:
    """The resource."""

    def __init__(self, metrics: Metrics) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(metrics)

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """Tell all, in the format that ``Accept`` asks for: Prometheus's own, or OpenMetrics."""
        try:
            encode, content_type = choose_encoder(req.accept)
        except TypeError:
            # A version that is none, which the library compares with one that is.
            encode, content_type = choose_encoder("")
        resp.content_type = content_type
        resp.cache_control = ["no-store"]
        resp.data = encode(self._registry)

    on_head = on_get


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)


def _counter(name: str, meaning: str, value: float) -> Metric:
    return CounterMetricFamily(name, meaning, value=value)


def _info(name: str, meaning: str, labels: dict[str, str]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family


def _buckets(
    bounds: Sequence[float], cells: Sequence[float]
) -> tuple[list[tuple[str, float]], float]:
    """Return what is at or below each bound, as Prometheus has it, and the sum."""
    names = map(floatToGoString, (*bounds, inf))
    return list(zip(names, accumulate(cells[1:]), strict=True)), cells[0]


def _float(number: object) -> float:
    try:
        return float(number)  # type: ignore[arg-type]
    except OverflowError:
        return inf
