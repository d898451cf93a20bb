"""Texts, summaries and costs of terms, compared with FLINT, libmpdec and arithmetic."""

import random
import string
from math import isqrt

import pytest
from flint import fmpz
from gmpy2 import mpz
from hypothesis import given
from hypothesis import strategies as st

from bigfib import terms
from bigfib.numbers import fibonacci
from bigfib.numbers.fibonacci import IndexTooLarge
from bigfib.terms import InvalidModulus


def expected(n: int) -> int:
    """Return F(n) by FLINT; F(-n) = (-1)^(n+1) F(n)."""
    magnitude = int(fmpz.fib_ui(fmpz(abs(n))))
    return -magnitude if n < 0 and n % 2 == 0 else magnitude


def digits_in(value: int, base: int) -> str:
    """Return digits by long division."""
    alphabet = string.digits + (
        string.ascii_lowercase if base <= 36 else string.ascii_uppercase + string.ascii_lowercase
    )
    rest, digits = abs(value), ""
    while rest:
        rest, digit = divmod(rest, base)
        digits = alphabet[digit] + digits
    return ("-" if value < 0 else "") + (digits or "0")


SIZES = [*range(-200, 3000), *random.Random(1).sample(range(-200_000, 200_000), 100)]


class TestText:
    def test_decimal_text_is_that_of_flint(self) -> None:
        for n in SIZES:
            text = terms.text(mpz(n))
            sign = "-" if expected(n) < 0 else ""
            assert text.decode() == sign + fmpz.fib_ui(fmpz(abs(n))).str(base=10)
            assert terms.length(mpz(n), 10, terms.text_frame(mpz(n))) == len(text)

    @pytest.mark.parametrize("base", terms.BASES)
    def test_text_in_other_bases_is_that_of_flint(self, base: int) -> None:
        for n in (0, 1, 2, -2, 10, -300, 1001, 9_999, 10_000, -10_002):
            text = terms.text(mpz(n), base)
            assert text.decode() == digits_in(expected(n), base)
            assert terms.length(mpz(n), base, terms.text_frame(mpz(n))) == len(text)

    def test_text_of_the_millionth_term_is_exact(self) -> None:
        n = terms.INLINE_LIMIT
        assert terms.text(mpz(n)) == fmpz.fib_ui(fmpz(n)).str(base=10).encode()
        assert terms.length(mpz(-n), 10, terms.text_frame(mpz(-n))) == 208_989


class TestOctets:
    def test_are_twos_complement_in_as_few_as_hold_it(self) -> None:
        for n in SIZES:
            octets = terms.octets(mpz(n))
            assert int.from_bytes(octets, "big", signed=True) == expected(n)
            assert len(octets) == terms.octets_length(mpz(n))
            if len(octets) > 1:
                with pytest.raises(OverflowError):
                    expected(n).to_bytes(len(octets) - 1, "big", signed=True)


class TestWalk:
    @given(st.integers(-3000, 3000), st.integers(1, 30))
    def test_is_every_term_in_a_row(self, first: int, count: int) -> None:
        assert list(terms.walk(first, count)) == [
            (n, str(expected(n)).encode()) for n in range(first, first + count)
        ]

    def test_walk_beyond_the_largest_index_is_refused(self) -> None:
        with pytest.raises(IndexTooLarge):
            next(terms.walk(10**30, 1))


class TestLimits:
    def test_require_inline_refuses_large_indices(self) -> None:
        for n in (0, 1_000_000, -1_000_000):
            terms.require_inline(n)
        for n in (1_000_001, -1_000_001, 10**100):
            with pytest.raises(IndexTooLarge, match=r"F\(-1000000\) to F\(1000000\)"):
                terms.require_inline(n)

    def test_summary_refuses_too_many_ends(self) -> None:
        for ends in (1, 500):
            assert len(terms.summary(mpz(10_000), ends)["leading"]) == ends
        for ends in (0, 501, -1):
            with pytest.raises(ValueError, match="1 to 500"):
                terms.summary(mpz(10_000), ends)

    def test_residue_beyond_its_bounds_is_refused(self) -> None:
        longest = mpz(10**999)
        terms.require_cheap_residue(mpz(10**999), longest)
        with pytest.raises(IndexTooLarge, match="at most 1000 digits, not 1001"):
            terms.require_cheap_residue(mpz(1), longest * 10)
        with pytest.raises(IndexTooLarge, match=r"index of 1001 digits .* at most 999 digits"):
            terms.require_cheap_residue(mpz(10**1000), longest)

    @pytest.mark.parametrize("text", ["0", "-5", "", "x", "+7", "\u0663"])
    def test_text_that_is_not_a_modulus_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidModulus, match="at least 1"):
            terms.parse_modulus(text)

    @pytest.mark.parametrize(("text", "canonical"), [("007", "7"), ("1e9", "1000000000")])
    def test_modulus_in_another_notation_is_refused_with_its_canonical_form(
        self, text: str, canonical: str
    ) -> None:
        with pytest.raises(InvalidModulus, match=f"is not a modulus; write {canonical}$"):
            terms.parse_modulus(text)


class TestSummary:
    def test_of_terms_that_can_be_looked_at(self) -> None:
        for n in random.Random(2).sample(range(-20_000, 20_000), 200):
            value = expected(n)
            digits = str(abs(value))
            assert terms.summary(mpz(n), 30) == {
                "n": str(n),
                "digits": str(len(digits)),
                "leading": str(value)[: 30 + (value < 0)],
                "trailing": digits[-30:],
                "bytes": str((value if value >= 0 else ~value).bit_length() // 8 + 1),
            }


def indices(value: object) -> list[int] | tuple[int, int]:
    """Return the indices of a value, or those of its neighbours in a tuple."""
    try:
        return terms.indices(str(value), lambda n: terms.text(mpz(n)))
    except terms.NotATerm as error:
        return error.neighbours


class TestIndices:
    def test_small_values_are_terms_where_5nn_plus_or_minus_4_is_a_square(self) -> None:
        """v is F(n) for an even n if 5 v^2 + 4 is a square, for an odd n if 5 v^2 - 4 is one."""
        found = []
        for value in range(-20_000, 20_001):
            squares = [5 * value * value + 4] + ([5 * value * value - 4] if value > 0 else [])
            is_term = any(isqrt(square) ** 2 == square for square in squares)
            answer = indices(value)
            assert isinstance(answer, list) == is_term, value
            if isinstance(answer, list):
                assert [expected(n) for n in answer] == [value] * len(answer)
                assert all(n < 0 for n in answer) == (value < 0)
                found += answer
            else:
                below, above = answer
                assert expected(below) < value < expected(above)
                assert above - below == (1 if value > 0 else 2)
        assert found == [*range(-22, 0, 2), *range(23)]

    @pytest.mark.parametrize("n", [*range(3, 400), 9_999, 10_000, 100_001, 1_000_000])
    def test_large_terms_are_found_and_what_is_beside_them_is_not(self, n: int) -> None:
        value = fmpz.fib_ui(fmpz(n))
        assert indices(value.str(base=10)) == [n]
        if n > 4:
            assert indices((value - 1).str(base=10)) == (n - 1, n)
            assert indices((value + 1).str(base=10)) == (n, n + 1)
        if n % 2 == 0:
            assert indices((-value).str(base=10)) == [-n]
            assert indices((-value - 1).str(base=10)) == (-n - 2, -n)

    def test_values_of_every_length_up_to_the_longest_have_the_nearest_index(self) -> None:
        """10^k is between terms whose digit counts follow from Binet's formula; none has more."""
        for k in (1_000, 10_000_000, 208_987_639):
            n = fibonacci.nearest("1" + "0" * k)
            assert fibonacci.digit_count(n - 1) <= k + 1 <= fibonacci.digit_count(n + 1)

    @pytest.mark.parametrize("text", ["", "-", "+5", "\u0665"])
    def test_what_is_no_value_is_refused(self, text: str) -> None:
        with pytest.raises(fibonacci.InvalidValue, match="write a whole number"):
            fibonacci.parse_value(text)

    @pytest.mark.parametrize(
        ("text", "canonical"),
        [
            *(("05", "5"), ("-0", "0"), ("1e6", "1000000"), ("1_000", "1000"), ("5 ", "5")),
            ("5\n", "5"),
        ],
    )
    def test_value_in_another_notation_is_refused_with_its_canonical_form(
        self, text: str, canonical: str
    ) -> None:
        with pytest.raises(fibonacci.InvalidValue, match=f"is not a value; write {canonical}$"):
            fibonacci.parse_value(text)
