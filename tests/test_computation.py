"""Large terms in child processes, compared with FLINT."""

import os
from pathlib import Path

import pytest
from flint import fmpz

from bigfib import computation
from bigfib.computation import ComputationFailed
from bigfib.numbers import kernel as kernels
from bigfib.numbers.kernel import Kernel
from tests.numbers.kernels import broken


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.mark.parametrize("n", [12_345_678, 20_000_001])
def test_digits_without_the_kernel_equal_flint(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    monkeypatch.setattr(kernels, "load", lambda: None)
    told: list[float] = []
    assert computation.digits(n, told.append) == fmpz.fib_ui(fmpz(n)).str(base=10)
    assert told[-1] == 1


@pytest.mark.parametrize("cores", [1, 2])
def test_digits_by_kernel_equal_flint(
    monkeypatch: pytest.MonkeyPatch, kernel: Kernel, cores: int
) -> None:
    monkeypatch.setattr(kernels, "load", lambda: kernel)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    n = 12_345_678
    told: list[float] = []
    digits = computation.digits(n, told.append)
    assert not isinstance(digits, str)
    assert bytes(digits).decode() == fmpz.fib_ui(fmpz(n)).str(base=10)
    assert told[-1] == 1
    with computation.Computation(n) as computing:
        assert list(computing.progress())[-1] == 1
        assert "".join(computing.pieces()) == fmpz.fib_ui(fmpz(n)).str(base=10)


def test_digits_that_are_wrong_are_not_shown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bad = broken(tmp_path, "(u128)w3[c] * high + rest", "(u128)rest")
    monkeypatch.setattr(kernels, "load", lambda: bad)
    with (
        pytest.raises(ComputationFailed, match="check the memory and the processor"),
        computation.Computation(1_000_000) as computing,
    ):
        list(computing.progress())


def test_computation_left_early_leaves_no_process() -> None:
    before = children()
    with computation.Computation(300_000_000) as computing:
        assert next(computing.progress()) == 0
        assert children() > before
    assert children() == before
