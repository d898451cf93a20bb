"""Residues and summaries of terms of any size."""

import decimal
import json
import random
from decimal import Decimal

import gmpy2
import pytest

from tests.api.answers import (
    LIMIT,
    OCTETS,
    TEXT,
    Get,
    expected,
    refused,
)


class TestResidue:
    def test_residue_equals_that_of_the_whole_term(self, get: Get) -> None:
        randomness = random.Random(7)
        for _ in range(60):
            n = randomness.choice([-1, 1]) * int(10 ** randomness.uniform(0, 5))
            modulus = randomness.randrange(1, 10 ** randomness.randrange(1, 50))
            residue = expected(n) % modulus
            document = {"n": str(n), "modulo": str(modulus), "residue": str(residue)}
            assert json.loads(get(f"/{n}?modulo={modulus}")[1]) == document
            assert get(f"/{n}?modulo={modulus}", TEXT)[1].decode() == str(residue)

    @pytest.mark.parametrize("digits", [20, 100, 1000, 4301, 10_000])
    def test_residue_of_a_large_index_equals_gmp(self, get: Get, digits: int) -> None:
        n = gmpy2.mpz("7" * digits)
        for modulus in (2, 10**9 + 7, 10**99):
            # GMP's Lucas sequence U(1, -1) is the Fibonacci sequence.
            residue = gmpy2.lucasu_mod(1, -1, n, modulus)
            assert get(f"/{n.digits()}?modulo={modulus}", TEXT)[1].decode() == str(residue)

    def test_residue_beyond_the_limits_is_422(self, get: Get) -> None:
        assert get(f"/{10**999}?modulo={10**999}")[0].status == 200
        refused(get(f"/5?modulo={10**1000}"), 422, "at most 1000 digits, not 1001")
        refused(get(f"/{10**1000}?modulo={10**999}"), 422, "a modulus of at most 999 digits")
        refused(get("/5?modulo=" + "9" * 10_001), 422, "at most 10000 digits")

    @pytest.mark.parametrize("modulo", ["0", "-7", "x", "", "007", "1e3"])
    def test_text_that_is_no_modulus_is_422(self, get: Get, modulo: str) -> None:
        refused(get(f"/5?modulo={modulo}"), 422, "is not a modulus")

    def test_residue_as_octets_is_406(self, get: Get) -> None:
        refused(get("/5?modulo=3", OCTETS), 406, "application/json or text/plain")

    def test_range_of_a_residue_is_ignored(self, get: Get) -> None:
        reply, body = get("/100?modulo=1000", TEXT | {"Range": "bytes=1-1"})
        assert (reply.status, body) == (200, b"75")
        assert reply.headers["Accept-Ranges"] is None


class TestSummary:
    def test_summary_equals_the_ends_of_the_term(self, get: Get) -> None:
        whole = str(abs(expected(-1000)))
        assert json.loads(get("/-1000/summary?digits=7")[1]) == {
            "n": "-1000",
            "digits": str(len(whole)),
            "leading": f"-{whole[:7]}",
            "trailing": whole[-7:],
            "bytes": str(expected(1000).bit_length() // 8 + 1),
        }
        assert json.loads(get("/1000/summary")[1])["leading"] == whole[:20]

    def test_summary_has_the_size_of_the_term(self, get: Get) -> None:
        for n in (LIMIT, -LIMIT + 7):
            summary = json.loads(get(f"/{n}/summary")[1])
            assert len(get(f"/{n}", TEXT)[1].lstrip(b"-")) == int(summary["digits"])
            assert len(get(f"/{n}", OCTETS)[1]) == int(summary["bytes"])

    def test_leading_digits_of_a_large_index_equal_libmpdec(self, get: Get) -> None:
        """F(10^100) by libmpdec and Binet's formula."""
        with decimal.localcontext(decimal.Context(prec=700)):
            phi, root = (1 + Decimal(5).sqrt()) / 2, Decimal(5).sqrt()
            logarithm = Decimal(10**100) * phi.log10() - root.log10()
            leading = str(10 ** (logarithm % 1)).replace(".", "")
        summary = json.loads(get(f"/{10**100}/summary?digits=500")[1])
        assert summary["leading"] == leading[:500]
        assert summary["digits"] == str(int(logarithm) + 1)

    def test_last_digits_of_a_large_index_equal_gmp(self, get: Get) -> None:
        """F(10^1000) by GMP's Lucas sequence."""
        trailing = str(gmpy2.lucasu_mod(1, -1, gmpy2.mpz(10) ** 1000, gmpy2.mpz(10) ** 500))
        summary = json.loads(get(f"/{10**1000}/summary?digits=500")[1])
        assert summary["trailing"] == trailing.zfill(500)

    def test_summary_beyond_the_limits_is_422(self, get: Get) -> None:
        for digits in ("1", "500"):
            assert get("/" + "9" * 10_000 + f"/summary?digits={digits}")[0].status == 200
        for digits in ("0", "501", "-1"):
            refused(get(f"/100/summary?digits={digits}"), 422, "is 1 to 500")
        refused(
            get("/100/summary?digits=x"),
            422,
            "The parameter digits is not a number: 'x'; write it in digits.",
        )
        refused(get("/" + "9" * 10_001 + "/summary"), 422, "at most 10000 digits")

    def test_summary_as_text_is_406(self, get: Get) -> None:
        refused(get("/100/summary", TEXT), 406, "application/json")
