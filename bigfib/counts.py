"""Numbers that are counted as the service goes, each of which costs a request next to nothing.

They are plain cells, read when somebody asks. Workers of one service have theirs in memory that all
of them share, a slot for each: any worker can tell the sum, to the moment. A worker that is started
again goes on in the slot of the one that has ended, so that what that has counted is not lost.
"""

import mmap
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from math import inf
from typing import Final, Protocol, overload


class Cells(Protocol):
    """Numbers in memory: a list, or a part of what workers share."""

    def __len__(self) -> int: ...

    @overload
    def __getitem__(self, place: int) -> float: ...
    @overload
    def __getitem__(self, place: slice) -> "Iterable[float]": ...

    def __setitem__(self, place: int, value: float) -> None: ...


# 1 MiB for each worker, of which memory is taken by what is used.
_CELLS_OF_A_SLOT: Final = 1 << 17


class Number(Protocol):
    """What has cells.

    Attributes:
        cells: Its values, of which there are always as many.
    """

    cells: Cells


class Counter:
    """A number that only grows."""

    def __init__(self) -> None:
        self.cells: Cells = [0]

    def add(self, amount: int = 1) -> None:
        """Count so many more."""
        self.cells[0] += amount


class Gauge:
    """A number that stands somewhere, as long as its process lives."""

    def __init__(self) -> None:
        self.cells: Cells = [0]

    def set(self, value: float) -> None:
        """Let it stand at ``value``."""
        self.cells[0] = value


class Histogram:
    """How many values there were up to each of some bounds, and their sum.

    Attributes:
        bounds: The bounds, which belong to what is below them.
        cells: The sum; then for each bound the number of values above the one before, and last that
            of the values above all.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.cells: Cells = [0] * (len(bounds) + 2)
        # One more, so that the place among them is that of the cell.
        self._edges = (-inf, *bounds)

    def observe(self, value: float) -> None:
        """Count a value."""
        self.cells[0] += value
        self.cells[bisect_left(self._edges, value)] += 1


class Slots:
    """The memory that workers share. It has to be made before they are forked.

    Every worker joins the same numbers in the same order.

    Attributes:
        own: Which slot is this process's.
    """

    def __init__(self, count: int) -> None:
        """Make so many slots."""
        self.own = 0
        memory = memoryview(mmap.mmap(-1, count * _CELLS_OF_A_SLOT * 8)).cast("d")
        self._slots = [
            memory[start : start + _CELLS_OF_A_SLOT]
            for start in range(0, len(memory), _CELLS_OF_A_SLOT)
        ]
        self._joined = 0

    def join(self, number: Number) -> list[Cells]:
        """Move the cells of ``number`` into the own slot, and return those of all workers.

        What is there, of a process that has ended, is kept, and what has been counted is added; a
        gauge begins anew.
        """
        start, end = self._joined, self._joined + len(number.cells)
        if end > _CELLS_OF_A_SLOT:
            raise ValueError(f"a slot has {_CELLS_OF_A_SLOT} cells, which are not enough")
        self._joined = end
        every: list[Cells] = [slot[start:end] for slot in self._slots]
        own = every[self.own]
        for place, value in enumerate(number.cells[:]):
            if isinstance(number, Gauge):
                own[place] = value
            elif value:
                own[place] += value
        number.cells = own
        return every
