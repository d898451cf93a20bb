"""How many requests there were, and how long they took, by route, method and status.

A request takes from the moment when the application is called until its reply is out of its hands:
a reply in one piece, and a file that the kernel sends, when the server may write it, which is after
its commit; a reply in several pieces when the last of them has been sent.

Labels are few whatever clients ask for: what no route leads to is one route, what HTTP does not
commonly know one method.
"""

from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from math import inf
from time import perf_counter
from typing import Any, Final, NamedTuple

from bigfib.counts import Cells

BOUNDS: Final = (
    *(10e-6, 25e-6, 50e-6, 100e-6, 250e-6, 1e-3, 2.5e-3),
    *(10e-3, 25e-3, 100e-3, 250e-3, 1.0, 2.5, 10.0),
)
"""Seconds, from a step to what a client no longer waits for."""

UNMATCHED: Final = "unmatched"
"""The route of what there is no route for."""

OTHER: Final = "other"

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", OTHER)

STATUSES: Final = (
    *("200", "201", "202", "204", "206", "304"),
    *("400", "403", "404", "405", "406", "409", "411", "412", "413", "415", "416", "422"),
    *("500", "503", "507", OTHER),
)

FAILURES: Final = ("500", "507")
"""Statuses that are told of before there is any, so that the first one is seen as a change."""

_WIDTH: Final = len(BOUNDS) + 2

EDGES: Final = (-inf, *BOUNDS)
"""The bounds, with one more before them: the place among them is that of the cell."""


class Measured(NamedTuple):
    """What requests of one kind have come to.

    Attributes:
        route: Its template.
        method: HTTP's method.
        status: HTTP's status.
        cells: As `counts.Histogram` has them.
    """

    route: str
    method: str
    status: str
    cells: list[float]


class Kind(dict[str, int]):
    """Where the cells of requests begin, by their status line."""

    def __init__(self, start: int) -> None:
        super().__init__()
        self._start = start

    def __missing__(self, status_line: str) -> int:
        status = status_line[:3]
        place = STATUSES.index(status if status in STATUSES else OTHER)
        start = self[status_line] = self._start + place * _WIDTH
        return start


class RequestSeconds:
    """A histogram for each route, method and status; see `counts.Histogram`.

    Attributes:
        cells: All of their cells.
        answered: What is to be counted by `count_answered`: what as, and when it began.
    """

    def __init__(self, methods: Mapping[str, Container[str]]) -> None:
        """Measure requests of all routes, and of what there is no route for.

        Args:
            methods: Those of each route.
        """
        self._methods = {**methods, UNMATCHED: ()}
        self._routes = {route: place for place, route in enumerate(self._methods)}
        self._kinds: dict[tuple[str, str], Kind] = {}
        count = len(self._routes) * len(METHODS) * len(STATUSES)
        self.cells: Cells = [0] * (count * _WIDTH)
        self.answered: list[tuple[int, float]] = []

    def kind(self, route: str, method: str) -> Kind:
        """Return where requests of a route and a method are counted, by the status line."""
        method = method if method in METHODS else OTHER
        kind = self._kinds.get((route, method))
        if kind is None:
            place = self._routes[route] * len(METHODS) + METHODS.index(method)
            kind = self._kinds[route, method] = Kind(place * len(STATUSES) * _WIDTH)
        return kind

    def count(self, where: int, seconds: float) -> None:
        """Count a request.

        Args:
            where: What as; see `kind`.
            seconds: What it has taken.
        """
        cells = self.cells
        cells[where] += seconds
        cells[where + bisect_left(EDGES, seconds)] += 1

    def count_answered(self) -> None:
        """Count those whose replies are out of the application's hands now."""
        now = perf_counter()
        for where, began in self.answered:
            self.count(where, now - began)
        self.answered.clear()

    def measured(self, workers: Sequence[Cells]) -> Iterator[Measured]:
        """Yield what there has been at all, and failures even if there were none.

        Args:
            workers: The cells of every worker.
        """
        start = 0
        for route, methods in self._methods.items():
            for method in METHODS:
                for status in STATUSES:
                    # A request takes some time, if it was one.
                    kept = [cells for cells in workers if cells[start]]
                    if kept or (status in FAILURES and method in methods):
                        every = [c[start : start + _WIDTH] for c in kept or workers[:1]]
                        cells = [sum(one) for one in zip(*every, strict=True)]
                        yield Measured(route, method, status, cells)
                    start += _WIDTH


class MeasuredBody:
    """The pieces of a reply, which is counted when the server wants no more of them."""

    __slots__ = ("_began", "_body", "_seconds", "_where")

    def __init__(
        self, body: Iterable[bytes], seconds: RequestSeconds, where: int, began: float
    ) -> None:
        self._body = body
        self._seconds = seconds
        self._where = where
        self._began = began

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """Be told by the server that it wants no more."""
        close: Any = getattr(self._body, "close", None)
        if close:
            close()
        self._seconds.count(self._where, perf_counter() - self._began)
