"""Exact terms, residues, digit counts and leading digits, compared with other implementations."""

import decimal
import random
from decimal import Decimal

import gmpy2
import pytest
from flint import fmpz

from bigfib.numbers import fibonacci
from bigfib.numbers.fibonacci import IndexTooLarge, InvalidIndex

# OEIS A039834: F(-n), from n = 0.
NEGAFIBONACCI = [0, 1, -1, 2, -3, 5, -8, 13, -21, 34, -55, 89, -144, 233, -377, 610, -987]

# OEIS A068070: the digit count of F(10^k), by k.
DIGITS_AT_POWERS_OF_TEN = {
    0: 1,
    1: 2,
    2: 21,
    3: 209,
    4: 2090,
    5: 20899,
    6: 208988,
    7: 2089877,
    8: 20898764,
    17: 20898764024997874,
    18: 208987640249978734,
}


def independent_term(n: int) -> int:
    """Return F(n) for n >= 0 by FLINT, whose recurrence is not GMP's."""
    return int(fmpz.fib_ui(fmpz(n)))


def independent_digits(n: int, base: int = 10) -> str:
    """Return the digits of F(n) for n >= 0, by FLINT."""
    return fmpz.fib_ui(fmpz(n)).str(base=base)


def independent_log10(n: int, precision: int = 60) -> Decimal:
    """Return log10 F(n) for large n by libmpdec and Binet's formula."""
    with decimal.localcontext(decimal.Context(prec=precision + len(str(n)))):
        phi = (1 + Decimal(5).sqrt()) / 2
        return n * phi.log10() - Decimal(5).sqrt().log10()


class TestParseIndex:
    @pytest.mark.parametrize("text", ["0", "7", "-6", "1000", "9" * 10_000, "-" + "9" * 10_000])
    def test_decimal_index_of_any_length_is_read(self, text: str) -> None:
        assert fibonacci.parse_index(text).digits() == text

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "-",
            "+5",
            "007",
            "-0",
            "00",
            "1_000",
            "1e9",
            "1.0",
            " 5",
            "5\n",
            "abc",
            "0x10",
            "٣",
            "²",
        ],
    )
    def test_text_that_is_no_index_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidIndex, match=r"is not an index; write (a whole number|-?\d+$)"):
            fibonacci.parse_index(text)

    def test_index_of_more_than_ten_thousand_digits_is_refused(self) -> None:
        with pytest.raises(IndexTooLarge, match="at most 10000 digits, not 10001"):
            fibonacci.parse_index("1" * 10_001)
        with pytest.raises(IndexTooLarge):
            fibonacci.parse_index("-" + "1" * 10_001)

    def test_a_long_refused_text_is_not_repeated_whole(self) -> None:
        with pytest.raises(InvalidIndex) as refusal:
            fibonacci.parse_index("x" * 9_000)
        assert len(str(refusal.value)) < 200


class TestTerm:
    def test_first_ten_terms_are_exact(self) -> None:
        assert [fibonacci.term(n) for n in range(10)] == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]

    def test_terms_of_negative_indices_equal_oeis(self) -> None:
        assert [fibonacci.term(-n) for n in range(len(NEGAFIBONACCI))] == NEGAFIBONACCI

    @pytest.mark.parametrize("n", [93, 94, 186, 1000, 4784, 99_999, 1_234_567])
    def test_large_terms_equal_flint(self, n: int) -> None:
        assert fibonacci.term(n) == independent_term(n)

    @pytest.mark.parametrize("n", [1, -1])
    def test_index_on_which_gmp_aborts_is_refused(self, n: int) -> None:
        # GMP aborts the process on 2^63.
        for beyond in (fibonacci.MAX_INDEX + 1, 2**63, 10**9_999):
            with pytest.raises(IndexTooLarge, match="F\\(1000000000\\)"):
                fibonacci.term(n * beyond)


class TestPair:
    @pytest.mark.parametrize("n", [0, 1, 2, 93, 5000])
    def test_pair_is_a_term_and_the_next(self, n: int) -> None:
        assert fibonacci.pair(n) == (independent_term(n), independent_term(n + 1))

    def test_pair_beyond_the_largest_index_is_refused(self) -> None:
        for beyond in (fibonacci.MAX_INDEX, 2**63):
            with pytest.raises(IndexTooLarge):
                fibonacci.pair(beyond)


class TestResidue:
    @pytest.mark.parametrize("modulus", [1, 2, 10, 97, 2**61 - 1, 10**40])
    def test_residue_equals_the_remainder_of_the_term(self, modulus: int) -> None:
        for n in [*range(40), 1000, 12_345]:
            assert fibonacci.residue(n, modulus) == independent_term(n) % modulus
        for n, value in enumerate(NEGAFIBONACCI):
            assert fibonacci.residue(-n, modulus) == value % modulus

    @pytest.mark.parametrize(
        ("modulus", "period"), [(2, 3), (10, 60), (1000, 1500), (10**6, 1_500_000)]
    )
    def test_residue_of_a_large_index_follows_pisano_periods(
        self, modulus: int, period: int
    ) -> None:
        n = 10**1000 + 7
        assert fibonacci.residue(n, modulus) == independent_term(n % period) % modulus

    def test_fermat_like_identity_at_a_large_prime(self) -> None:
        # F(p) = (5|p) mod p, and F(p - (5|p)) = 0 mod p, for every prime p but 5.
        p = 2**127 - 1  # = 2 mod 5, so 5 is no square
        assert fibonacci.residue(p, p) == p - 1
        assert fibonacci.residue(p + 1, p) == 0


class TestDigitCount:
    def test_digit_count_at_powers_of_ten_equals_oeis(self) -> None:
        for exponent, digits in DIGITS_AT_POWERS_OF_TEN.items():
            assert fibonacci.digit_count(10**exponent) == digits

    def test_digit_count_where_it_changes_is_exact(self) -> None:
        # Indices from which to the next the count grows by one, near and far; both are tested.
        last = 1
        for n in range(1, 12_000):
            count = fibonacci.digit_count(n)
            if count != last:
                assert count == len(independent_digits(n))
                assert last == len(independent_digits(n - 1))
                last = int(count)
        assert last == len(independent_digits(11_999))

    @pytest.mark.parametrize("base", [2, 3, 7, 16, 36])
    def test_digit_count_in_other_bases_equals_flint(self, base: int) -> None:
        for n in [0, 1, 2, 100, 9_999, 10_000, 10_001, 20_011, 50_021]:
            assert fibonacci.digit_count(n, base) == len(independent_digits(n, base))

    @pytest.mark.parametrize("exponent", [9, 18, 100, 1000])
    def test_digit_count_of_a_large_index_equals_libmpdec(self, exponent: int) -> None:
        n = 10**exponent + 1
        assert fibonacci.digit_count(n) == int(independent_log10(n)) + 1

    def test_quick_digit_count_of_short_terms_is_that_of_their_text(self) -> None:
        for n in range(12_000):
            assert fibonacci.quick_digit_count(n) == len(independent_digits(n))

    def test_quick_digit_count_where_floating_point_cannot_tell_equals_libmpdec(self) -> None:
        # Up to 2^53, the last of the product's 53 bits is worth up to a quarter of a digit.
        for n in (
            random.Random(4).randrange(1 << bits) for bits in range(20, 54) for _ in "12345678"
        ):
            assert fibonacci.quick_digit_count(n) == int(independent_log10(n)) + 1

    def test_digit_count_ignores_the_sign(self) -> None:
        assert fibonacci.digit_count(-10_000) == fibonacci.digit_count(-100) * 100 - 10 == 2090


class TestEnds:
    @pytest.mark.parametrize("n", [0, 1, 12, 100, 9_999, 10_000, 10_007, 100_003])
    def test_ends_equal_those_of_the_term(self, n: int) -> None:
        text = independent_digits(n)
        for count in (1, 2, 20, 1000):
            assert fibonacci.leading_digits(n, count) == text[:count]
            assert fibonacci.trailing_digits(n, count) == text[-count:]
            assert fibonacci.leading_digits(-n, count) == text[:count]

    def test_ends_at_random_indices_equal_flint(self) -> None:
        for n in random.Random(2).sample(range(10_000, 200_000), 50):
            text = independent_digits(n)
            assert fibonacci.leading_digits(n, 25) == text[:25]
            assert fibonacci.trailing_digits(n, 25) == text[-25:]

    @pytest.mark.parametrize("exponent", [9, 30, 100])
    def test_leading_digits_of_a_large_index_equal_libmpdec(self, exponent: int) -> None:
        n = 10**exponent
        with decimal.localcontext(decimal.Context(prec=100 + exponent)):
            significand = 10 ** (independent_log10(n, 100) % 1)
        assert fibonacci.leading_digits(n, 30) == str(significand).replace(".", "")[:30]

    @pytest.mark.parametrize("exponent", [100, 1000, 9999])
    @pytest.mark.parametrize("count", [1, 2, 3, 20, 500])
    def test_last_digits_of_a_large_index_equal_gmp(self, exponent: int, count: int) -> None:
        n = 10**exponent + 7
        # GMP's Lucas sequence U(1, -1) is the Fibonacci sequence.
        expected = int(gmpy2.lucasu_mod(1, -1, n, 10**count))
        assert fibonacci.trailing_digits(n, count) == f"{expected:0{count}}"

    def test_trailing_zeros_are_kept(self) -> None:
        # 10^4 divides F(7500), so four digits in a row are zeros.
        assert fibonacci.trailing_digits(7500 * 10**20, 4) == "0000"
