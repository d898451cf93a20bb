"""The pair in decimal, by the kernel and packed, compared with FLINT's terms and GMP's integers."""

import mmap
import random
import subprocess
import sys

import pytest
from flint import fmpz

from bigfib.numbers import kernel
from bigfib.numbers.decimals import DecimalPair, StartOfSequence
from bigfib.numbers.fibonacci import MAX_INDEX, IndexTooLarge


@pytest.fixture(params=["as installed", "without the kernel"], autouse=True)
def installation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "as installed":
        monkeypatch.setattr(kernel, "load", lambda: None)


def text_of(n: int) -> bytes:
    """Return F(n) in decimal, by FLINT."""
    return str(fmpz.fib_ui(fmpz(n))).encode()


# Indices at which F(n) has one digit more than F(n - 1).
LENGTH_BOUNDARIES = [n for n in range(2, 3000) if len(text_of(n)) > len(text_of(n - 1))]

# The first index whose term has so many digits (OEIS A072354).
FIRST_OF_LENGTH = {5_000: 23_922, 20_000: 95_697}


def test_pair_begins_at_zero() -> None:
    pair = DecimalPair()
    assert (pair.position, pair.digits(), pair.digit_count) == (0, b"0", 1)


def test_steps_forward_and_back_through_zero_give_exact_terms() -> None:
    pair = DecimalPair()
    this, following = 0, 1
    terms = [b"0"]
    for position in range(1, 2001):
        this, following = following, this + following
        terms.append(b"%d" % this)
        pair.forward()
        assert pair.position == position
        assert pair.digits() == terms[position]
        assert pair.digit_count == len(terms[position])
    for position in reversed(range(2000)):
        pair.back()
        assert pair.position == position
        assert pair.digits() == terms[position]
        assert pair.digit_count == len(terms[position])
    pair.forward()
    pair.forward()
    pair.forward()
    assert pair.digits() == b"2"


@pytest.mark.parametrize("boundary", random.Random(1).sample(LENGTH_BOUNDARIES, 40))
def test_steps_to_and_fro_over_a_length_boundary_give_exact_terms(boundary: int) -> None:
    pair = DecimalPair(boundary - 2)
    path = [*["forward"] * 4, *["back"] * 5, "forward", "back", *["forward"] * 3]
    for step in path:
        getattr(pair, step)()
        assert pair.digits() == text_of(pair.position)
    assert pair.position == boundary


def test_pair_built_at_a_length_boundary_is_exact() -> None:
    for boundary in LENGTH_BOUNDARIES:
        for position in (boundary - 1, boundary):
            assert DecimalPair(position).digits() == text_of(position)


def test_carries_and_borrows_over_many_digits_are_exact() -> None:
    # Runs of nines or zeros in a term, through which a carry or borrow of its neighbours has run.
    found = [n for n in range(3000) if b"9999" in text_of(n) or b"0000" in text_of(n)]
    assert len(found) > 50
    for n in found:
        pair = DecimalPair(n - 1)
        pair.forward()
        assert pair.digits() == text_of(n)
        pair.forward()
        pair.back()
        assert pair.digits() == text_of(n)


@pytest.mark.parametrize("n", random.Random(3).sample(range(50_000, 400_000), 6))
def test_steps_of_a_large_pair_are_exact_in_both_directions(n: int) -> None:
    pair = DecimalPair(n)
    assert pair.digits() == text_of(n)
    for _ in range(30):
        pair.forward()
    assert pair.digits() == text_of(n + 30)
    for _ in range(60):
        pair.back()
    assert pair.digits() == text_of(n - 30)


def test_a_long_walk_ends_where_it_began() -> None:
    pair = DecimalPair(20_000)
    for _ in range(3000):
        pair.forward()
    assert pair.digits() == text_of(23_000)
    for _ in range(6000):
        pair.back()
    assert pair.digits() == text_of(17_000)


@pytest.mark.parametrize(("this", "following"), [(6269, 6269), (6270, 6271), (6271, 6270)])
def test_pair_of_terms_of_other_lengths_is_refused(this: int, following: int) -> None:
    # F(30,000) and F(30,001) have 6,270 digits (OEIS A060384).
    with pytest.raises(ValueError, match=f"6270 and 6270 digits, not {this} and {following}"):
        DecimalPair.of_digits(30_000, b"7" * this, b"7" * following)


def test_step_back_from_zero_is_refused() -> None:
    pair = DecimalPair()
    with pytest.raises(StartOfSequence):
        pair.back()
    assert (pair.position, pair.digits()) == (0, b"0")
    pair.forward()
    assert pair.digits() == b"1"


def test_digits_are_converted_once() -> None:
    pair = DecimalPair(1000)
    assert pair.digits() is pair.digits()


def test_pair_beyond_what_is_computed_is_refused() -> None:
    with pytest.raises(IndexTooLarge):
        DecimalPair(MAX_INDEX)


def test_steps_over_the_length_where_the_kernel_takes_over_are_exact() -> None:
    # F(9000) has 1,881 digits, F(9600) 2,006, and F(10200) 2,132.
    pair = DecimalPair(9_000)
    for step, last in ((pair.forward, 10_200), (pair.back, 9_000), (pair.forward, 9_600)):
        for position in range(pair.position, last, 1 if last > pair.position else -1):
            assert pair.position == position
            step()
            assert pair.length == len(text_of(pair.position + 1))
            if position % 50 == 0:
                assert pair.digits(b"}") == text_of(pair.position) + b"}"
        assert pair.digits() == text_of(last)


def test_short_term_imports_no_ctypes() -> None:
    script = "import sys, bigfib.sequences; sys.exit('ctypes' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("digits", [5_000, 20_000])
def test_memory_of_pairs_is_what_their_process_grows_by(digits: int) -> None:
    # In a process of its own, which has no freed memory that the pairs could use.
    load = "kernel.load" if kernel.load() else "lambda: None"
    script = f"""
from pathlib import Path
from bigfib.numbers import kernel
from bigfib.numbers.decimals import DecimalPair

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * {mmap.PAGESIZE}

kernel.load = {load}
first = DecimalPair({FIRST_OF_LENGTH[digits]})
this = first.digits()
first.forward()
following = first.digits()
before = resident()
pairs = []
for _ in range(15_000_000 // {digits}):
    pair = DecimalPair.of_digits(first.position - 1, this, following)
    pair.forward()
    pair.forward()
    pair.digits(b"}}")
    pairs.append(pair)
print((resident() - before) / sum(pair.memory for pair in pairs))
"""
    command = [sys.executable, "-c", script]
    ratio = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert 0.95 < ratio < 1.15


@pytest.mark.parametrize(("position", "last"), [(9_000, 10_200), (10_200, 9_000)])
def test_memory_follows_the_way_in_which_the_terms_are_kept(position: int, last: int) -> None:
    # As long as a new pair reports there, if the kernel takes over on the way, too.
    pair = DecimalPair(position)
    for _ in range(abs(last - position)):
        (pair.forward if last > position else pair.back)()
    assert pair.memory == DecimalPair(last).memory
