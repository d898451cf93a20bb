"""Large terms on two cores, against FLINT; the second process killed."""

import os
import signal
from decimal import Decimal
from pathlib import Path

import pytest
from flint import fmpz

from bigfib import computation
from bigfib.computation import ComputationFailed
from bigfib.numbers import doubling
from bigfib.numbers import kernel as kernels
from bigfib.numbers.kernel import Kernel
from tests.numbers.kernels import broken

NUMBER = "7" * 300_000


def children() -> str:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text()


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("n", [12_345_678, 20_000_001])
def test_digits_on_one_core_and_on_two_are_those_of_flint(
    monkeypatch: pytest.MonkeyPatch, cores: int, n: int
) -> None:
    monkeypatch.setattr(kernels, "load", lambda: None)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores))
    monkeypatch.setattr(doubling, "SQUARES_APART_FROM", 5_000_000)
    fork, forks = os.fork, []

    def counted() -> int:
        forks.append(n)
        return fork()

    monkeypatch.setattr(os, "fork", counted)
    told: list[float] = []
    assert computation.digits(n, told.append) == fmpz.fib_ui(fmpz(n)).str(base=10)
    assert told[-1] == 1
    assert bool(forks) == (cores > 1)
    assert children() == ""


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
    with computation.of_term(n) as computing:
        assert list(computing.progress())[-1] == 1
        assert "".join(computing.pieces()) == fmpz.fib_ui(fmpz(n)).str(base=10)


def test_wrong_digits_are_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bad = broken(tmp_path, "(u128)w3[c] * high + rest", "(u128)rest")
    monkeypatch.setattr(kernels, "load", lambda: bad)
    with (
        pytest.raises(ComputationFailed, match="check the memory and the processor"),
        computation.of_term(1_000_000) as computing,
    ):
        list(computing.progress())


def square_of(digit: int) -> Decimal:
    """Return (digit * 111...1)^2, as FLINT multiplies."""
    number = fmpz(NUMBER) // 7 * digit
    return Decimal((number * number).str(base=10))


def test_squares_apart_are_those_of_flint() -> None:
    first, second = Decimal(NUMBER), Decimal(NUMBER.replace("7", "3"))
    assert computation.squares_apart(first, second) == (square_of(7), square_of(3))
    assert children() == ""


def test_square_whose_process_is_killed_is_computed_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would have done is done after all."""
    fork, killed = os.fork, []

    def fork_and_kill() -> int:
        child = fork()
        if child:
            os.kill(child, signal.SIGKILL)
            killed.append(child)
        return child

    monkeypatch.setattr(os, "fork", fork_and_kill)
    numbers = Decimal(NUMBER), Decimal(NUMBER.replace("7", "3"))
    assert computation.squares_apart(*numbers) == (square_of(7), square_of(3))
    assert killed
    assert children() == ""


def test_interrupt_while_squaring_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Decimal) -> Decimal:
        raise KeyboardInterrupt

    monkeypatch.setattr(doubling, "square", interrupt)
    with pytest.raises(KeyboardInterrupt):
        computation.squares_apart(Decimal(2), Decimal(3))
    assert children() == ""


def test_computation_left_early_leaves_no_process() -> None:
    with computation.of_term(300_000_000) as computing:
        assert next(computing.progress()) == 0
        assert children() != ""
    assert children() == ""
