"""Count what the service does, and collect the counts for Prometheus.

Counters are plain numbers in memory, so that they cost a request next to nothing; everything else
is looked up when Prometheus asks. The workers of a service share memory, in which each has a part
for its values, so that any of them can report the sums. A worker that replaces another
continues its counters.

Requests are labelled with route, method and status. The number of label values is bounded: all
paths without a route count as one route, and all uncommon methods as one method.
"""

import mmap
import os
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import bigfib
from bigfib.numbers.fibonacci import digit_count

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from bigfib.jobs import Jobs
    from bigfib.sequences import Sequences
    from bigfib.state.store import Store

UNMATCHED: Final = "unmatched"
"""The label of requests whose path has no route."""

OTHER: Final = "other"
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", OTHER)
STATUSES: Final = (
    *("200", "201", "202", "204", "206", "304"),
    *("400", "403", "404", "405", "406", "409", "411", "412", "413", "415", "416", "421", "422"),
    *("500", "503", "507", OTHER),
)

# Exported as zero from start-up, so that Prometheus sees the first failure as a change.
_FAILURES: Final = ("500", "507")

# Upper bounds of buckets. Requests: from a step to more than clients wait for. Commits: from a sync
# of a fast disk to the timeout of a database.
_REQUEST_SECONDS: Final = (
    *(10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 1e-3, 2.5e-3),
    *(10e-3, 25e-3, 100e-3, 250e-3, 1.0, 2.5, 10.0),
)
_COMMIT_SECONDS: Final = (100e-6, 250e-6, 1e-3, 2.5e-3, 10e-3, 25e-3, 100e-3, 250e-3, 1.0, 2.5)
_CHANGES: Final = tuple(2.0**power for power in range(11))

# The edge -inf makes `bisect_left` skip the sum, which precedes the buckets.
_EDGES: Final = (-inf, *_REQUEST_SECONDS)

_REQUEST_VALUES: Final = len(_REQUEST_SECONDS) + 2

# 1 MiB for each worker, of which the system allocates only what is used.
_VALUES_OF_A_WORKER: Final = 1 << 17

# The values of one process: a list, or a part of the memory that workers share.
Values: TypeAlias = "list[float] | memoryview[float]"


class _Instrument:
    """A fixed number of values: ``values`` of this process, ``of_workers`` of every worker."""

    def __init__(self, count: int = 1) -> None:
        self.values: Values = [0] * count
        self.of_workers: list[Values] = [self.values]


class Counter(_Instrument):
    """A number that only grows."""

    def add(self, amount: int = 1) -> None:
        """Add ``amount``."""
        self.values[0] += amount


class Gauge(_Instrument):
    """A number that goes up and down; sums leave it out once its process has ended."""

    def set(self, value: float) -> None:
        """Set the number to ``value``."""
        self.values[0] = value


class Histogram(_Instrument):
    """Count observations by size.

    The values are the sum of all observations, then the number in each bucket. The last bucket is
    above all bounds; a bound belongs to the bucket below it.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        super().__init__(len(bounds) + 2)
        self._edges = (-inf, *bounds)

    def observe(self, value: float) -> None:
        """Count an observation."""
        self.values[0] += value
        self.values[bisect_left(self._edges, value)] += 1

    def buckets(self) -> tuple[list[tuple[str, float]], float]:
        """Return upper bound and size of the cumulative buckets, and the sum."""
        return _buckets(self._edges[1:], _sums([values[:] for values in self.of_workers]))


class Offsets(dict[str, int]):
    """Map a status line to the start of its histogram, for one route and method."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self._start = start

    def __missing__(self, status_line: str) -> int:
        status = status_line[:3]
        number = STATUSES.index(status if status in STATUSES else OTHER)
        offset = self[status_line] = self._start + number * _REQUEST_VALUES
        return offset


class RequestHistogram(_Instrument):
    """Count requests by duration: a histogram for each route, method and status.

    The duration is from the call of the application until the server may send the reply, after its
    commit. If the reply has several pieces, it is until the server has taken the last one. The
    values are those of all histograms, one after the other.
    """

    def __init__(self, methods: Mapping[str, Container[str]]) -> None:
        """Count requests by route, each with its methods, and requests without a route."""
        self._methods = {**methods, UNMATCHED: ()}
        self._routes = {route: number for number, route in enumerate(self._methods)}
        self._offsets: dict[tuple[str, str], Offsets] = {}
        super().__init__(len(self._routes) * len(METHODS) * len(STATUSES) * _REQUEST_VALUES)

    def offsets(self, route: str, method: str) -> Offsets:
        """Return where requests of a route and a method are counted."""
        if (route, method) not in self._offsets:
            method = method if method in METHODS else OTHER
            number = self._routes[route] * len(METHODS) + METHODS.index(method)
            self._offsets[route, method] = Offsets(number * len(STATUSES) * _REQUEST_VALUES)
        return self._offsets[route, method]

    def count(self, offset: int, seconds: float) -> None:
        """Count a request at one of `offsets`."""
        values = self.values
        values[offset] += seconds
        values[offset + bisect_left(_EDGES, seconds)] += 1

    def collect(self) -> Iterator[tuple[tuple[str, ...], list[float]]]:
        """Yield labels and values of each histogram that counted anything, and of all failures."""
        start = 0
        for route, methods in self._methods.items():
            for method in METHODS:
                for status in STATUSES:
                    # Every request takes time, so a sum of 0 seconds means that there was none.
                    counted = [values for values in self.of_workers if values[start]]
                    end = start + _REQUEST_VALUES
                    if counted or (status in _FAILURES and method in methods):
                        parts = [values[start:end] for values in counted or [self.values]]
                        yield (route, method, status), _sums(parts)
                    start = end


class SharedMemory:
    """Memory for the values of all workers, created before they are forked.

    Every worker joins the same instruments in the same order. ``worker`` is the number of this
    process among the workers.
    """

    def __init__(self, workers: int) -> None:
        self.worker = 0
        memory = memoryview(mmap.mmap(-1, workers * _VALUES_OF_A_WORKER * 8)).cast("d")
        self._parts = [
            memory[start : start + _VALUES_OF_A_WORKER]
            for start in range(0, len(memory), _VALUES_OF_A_WORKER)
        ]
        self._joined = 0

    def join(self, instrument: _Instrument) -> None:
        """Move the values here; continue the counts of an earlier worker with this number."""
        start, end = self._joined, self._joined + len(instrument.values)
        if end > _VALUES_OF_A_WORKER:
            raise ValueError(f"{_VALUES_OF_A_WORKER} values for each worker are not enough")
        self._joined = end
        instrument.of_workers = [part[start:end] for part in self._parts]
        own = instrument.of_workers[self.worker]
        for offset, value in enumerate(instrument.values[:]):
            if isinstance(instrument, Gauge):
                own[offset] = value
            elif value:
                own[offset] += value
        instrument.values = own


_OF_REQUESTS: Final = ("route", "method", "status")

# Kind, help text and labels of each metric, by name.
_FAMILIES: Final[dict[str, tuple[str, ...]]] = {
    "bigfib_build_info": ("Gauge", "What is running.", "version", "kernel"),
    "bigfib_http_requests_total": ("Counter", "Requests answered.", *_OF_REQUESTS),
    "bigfib_http_request_seconds": (
        "Histogram",
        "Time from the call of the application until the reply, or its last piece, may be sent.",
        *_OF_REQUESTS,
    ),
    "bigfib_steps_total": ("Counter", "Steps made, of any sequence.", "direction"),
    "bigfib_sequence_cache_bytes": ("Gauge", "Memory of the cached terms of sequences."),
    "bigfib_store_up": ("Gauge", "Whether the store answers."),
    "bigfib_store_standby": (
        "Gauge",
        "Whether commits of the database wait for a synchronous standby.",
    ),
    "bigfib_shared_position": ("Gauge", "Position of the shared sequence, as a double."),
    "bigfib_shared_digits": ("Gauge", "Digits of the shared term, as a double."),
    "bigfib_commit_seconds": (
        "Histogram",
        "Time of a commit: a sync of the state log (only with --durability fsync), or a "
        "transaction of the database.",
    ),
    "bigfib_commit_replies": ("Histogram", "Changes that one commit has made durable."),
    "bigfib_log_bytes": ("Gauge", "Size of the state log."),
    "bigfib_log_records": ("Gauge", "Records in the state log."),
    "bigfib_log_rewrites_total": ("Counter", "Compactions of the state log."),
    "bigfib_log_checks_total": (
        "Counter",
        "Complete checks of the state log that found no damage.",
    ),
    "bigfib_log_faults_total": ("Counter", "Damage found in the state log while it is open."),
    "bigfib_jobs": ("Gauge", "Large terms being computed.", "state"),
    "bigfib_jobs_ended_total": ("Counter", "Computations of large terms that ended.", "state"),
    "bigfib_digit_cache_hits_total": ("Counter", "Large terms read from disk."),
    "bigfib_digit_cache_misses_total": ("Counter", "Large terms that had to be computed."),
    "bigfib_digit_cache_bytes": ("Gauge", "Bytes of digits on disk, of all services."),
}


class Metrics:
    """Collect the metrics of a service, summed over its workers."""

    def __init__(
        self,
        store: "Store",
        sequences: "Sequences",
        jobs: "Jobs",
        requests: RequestHistogram,
        worker_memory: SharedMemory | None = None,
    ) -> None:
        """Collect the counts of these objects, and set ``on_commit`` of the store.

        If there are several workers, the values move to ``worker_memory``.
        """
        self._store = store
        self._jobs = jobs
        self._requests = requests
        self._process = Gauge()
        self._process.set(os.getpid())
        self._commit_seconds = Histogram(_COMMIT_SECONDS)
        self._commit_changes = Histogram(_CHANGES)
        store.on_commit = self._count_commit
        self._counters: dict[str, dict[tuple[str, ...], Counter | Gauge]] = {
            "bigfib_steps_total": {
                ("forward",): sequences.steps_forward,
                ("back",): sequences.steps_back,
            },
            "bigfib_sequence_cache_bytes": {(): sequences.memory},
            "bigfib_jobs": {("queued",): jobs.queued, ("running",): jobs.running},
            "bigfib_jobs_ended_total": {
                ("done",): jobs.done,
                ("failed",): jobs.failed,
                ("cancelled",): jobs.cancelled,
            },
            "bigfib_digit_cache_hits_total": {(): jobs.hits},
            "bigfib_digit_cache_misses_total": {(): jobs.misses},
        }
        if worker_memory:
            counters = chain.from_iterable(each.values() for each in self._counters.values())
            histograms = (requests, self._commit_seconds, self._commit_changes)
            for instrument in (self._process, *histograms, *counters):
                worker_memory.join(instrument)

    def commit_seconds(self) -> float:
        """Return how long this process has waited for commits of the store."""
        return self._commit_seconds.values[0]

    def collect(self, position: int | None) -> "Iterator[Metric]":
        """Yield all metrics; ``position`` of the shared sequence is None if the store is down."""
        # Imported when first needed: commands that step do not wait for it.
        from bigfib.numbers import kernel

        yield _family("bigfib_build_info", {(bigfib.__version__, kernel.description()): (1,)})
        requests = dict(self._requests.collect())
        counts = {labels: (sum(values[1:]),) for labels, values in requests.items()}
        yield _family("bigfib_http_requests_total", counts)
        seconds = {
            labels: _buckets(_REQUEST_SECONDS, values)
            for labels, values in requests.items()
            if values[0]
        }
        yield _family("bigfib_http_request_seconds", seconds)
        for name, counters in self._counters.items():
            yield _family(name, {labels: (self._sum(one),) for labels, one in counters.items()})
        yield _family("bigfib_commit_seconds", {(): self._commit_seconds.buckets()})
        yield _family("bigfib_commit_replies", {(): self._commit_changes.buckets()})
        for name, value in self._values(position):
            yield _family(name, {(): (value,)})
        yield from self._of_processes()

    def _count_commit(self, seconds: float | None, changes: int) -> None:
        if seconds is not None:
            self._commit_seconds.observe(seconds)
        if changes:
            self._commit_changes.observe(changes)

    def _values(self, position: int | None) -> Iterator[tuple[str, float]]:
        """Yield name and value of each metric that is looked up now and has no labels."""
        yield "bigfib_store_up", position is not None
        if position is not None:
            if self._store.shared:
                yield "bigfib_store_standby", self._store.shared.has_standby
            yield "bigfib_shared_position", _float(position)
            yield "bigfib_shared_digits", _float(digit_count(position))
        log = self._store.log_facts()
        if log:
            yield "bigfib_log_bytes", log.size
            yield "bigfib_log_records", log.records
            yield "bigfib_log_rewrites_total", log.compactions
            yield "bigfib_log_checks_total", log.checks
            yield "bigfib_log_faults_total", log.faults
        yield "bigfib_digit_cache_bytes", self._jobs.cache.size()

    def _of_processes(self) -> "Iterator[Metric]":
        from prometheus_client import Metric, PlatformCollector, ProcessCollector

        families: dict[str, Metric] = {}
        for worker, pid in self._processes():
            # `collect` calls the lambda at once.
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
        for worker, values in enumerate(self._process.of_workers):
            pid = int(values[0])
            if pid and Path(f"/proc/{pid}").exists():
                yield worker, pid

    def _sum(self, counter: Counter | Gauge) -> float:
        """Return the sum over all workers; of a gauge, over those that are alive."""
        if isinstance(counter, Gauge):
            return sum(counter.of_workers[worker][0] for worker, _ in self._processes())
        return sum(values[0] for values in counter.of_workers)


def _family(name: str, members: Mapping[tuple[str, ...], tuple[Any, ...]]) -> "Metric":
    """Return the metric ``name``, with ``members`` by labels: the arguments of `add_metric`."""
    # Imported when first needed: the import takes longer than the whole of `bigfib current`.
    from prometheus_client import core

    kind, meaning, *labels = _FAMILIES[name]
    family: Any = getattr(core, f"{kind}MetricFamily")(name, meaning, labels=labels)
    for values_of_labels, value in members.items():
        family.add_metric(values_of_labels, *value)
    metric: Metric = family
    return metric


def _sums(parts: Sequence[Iterable[float]]) -> list[float]:
    return [sum(values) for values in zip(*parts, strict=True)]


def _buckets(
    bounds: Sequence[float], values: Sequence[float]
) -> tuple[list[tuple[str, float]], float]:
    """Return the number of observations at or below each bound, and their sum."""
    from prometheus_client.utils import floatToGoString

    names = map(floatToGoString, (*bounds, inf))
    return list(zip(names, accumulate(values[1:]), strict=True)), values[0]


def _float(number: object) -> float:
    try:
        return float(number)  # type: ignore[arg-type]
    except OverflowError:
        return inf
