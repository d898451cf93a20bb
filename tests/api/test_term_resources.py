"""``/api1/terms`` as a client meets it, on real sockets."""

import decimal
import json
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from decimal import Decimal
from http.client import HTTPResponse
from pathlib import Path

import falcon.testing
import gmpy2
import pytest
from flint import fmpz
from hypothesis import given, settings
from hypothesis import strategies as st

from bigfib.api.app import create_app
from bigfib.api.ranges import MAX_LINES, MAX_STREAMS
from bigfib.numbers import fibonacci
from bigfib.sequences import Sequences
from bigfib.state.log import Log
from tests.service import Serve, Service, exchange, jobs, seconds_of_work

JSON, TEXT = {"Accept": "application/json"}, {"Accept": "text/plain"}
OCTETS, LINES = {"Accept": "application/octet-stream"}, {"Accept": "application/x-ndjson"}
PROBLEM = "application/problem+json"

LIMIT = 1_000_000
MAX_TERM = 100_000_000

Answer = tuple[HTTPResponse, bytes]


def expected(n: int) -> int:
    """F(n) by FLINT; F(-n) = (-1)^(n+1) F(n)."""
    magnitude = int(fmpz.fib_ui(fmpz(abs(n))))
    return -magnitude if n < 0 and n % 2 == 0 else magnitude


def expected_text(n: int) -> bytes:
    """The digits by FLINT; Python writes out no number of so many."""
    sign = "-" if n < 0 and n % 2 == 0 else ""
    return (sign + fmpz.fib_ui(fmpz(abs(n))).str(base=10)).encode()


@pytest.fixture
def get(serve: Serve) -> Callable[..., Answer]:
    """Ask a service below ``/api1/terms``."""
    service = serve()

    def ask(path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
        return service.ask(f"/api1/terms{path}", method, headers)

    return ask


Get = Callable[..., Answer]


def refused(answer: Answer, status: int, says: str) -> None:
    """Assert that the answer is a problem document that says so."""
    reply, body = answer
    assert reply.status == status, body[:300]
    assert reply.headers["Content-Type"] == PROBLEM
    assert reply.headers["Cache-Control"] == "no-store"
    problem = json.loads(body)
    assert problem["status"] == status
    assert says in problem["detail"], problem


class TestTerm:
    def test_small_ones_in_every_form(self, get: Get) -> None:
        # OEIS A000045 and, for negative n, A039834.
        for n, value in {-8: -21, -7: 13, -6: -8, -1: 1, 0: 0, 1: 1, 10: 55, 12: 144}.items():
            digits = len(str(abs(value)))
            document = f'{{"n":"{n}","digits":"{digits}","value":"{value}"}}'
            assert get(f"/{n}", JSON)[1].decode() == document
            assert get(f"/{n}", TEXT)[1].decode() == str(value)
            octets = get(f"/{n}", OCTETS)[1]
            assert int.from_bytes(octets, "big", signed=True) == value

    def test_of_all_sizes(self, get: Get) -> None:
        sizes = [int(10 ** random.Random(n).uniform(0, 6)) for n in range(60)]
        for n in [*sizes, *(-size for size in sizes), LIMIT - 1, LIMIT, -LIMIT]:
            reply, body = get(f"/{n}", TEXT)
            assert reply.status == 200
            assert reply.headers["Content-Type"] == "text/plain"
            assert body == expected_text(n)
            length = len(body.lstrip(b"-"))
            assert get(f"/{n}", JSON)[1] == (
                b'{"n":"%d","digits":"%d","value":"%b"}' % (n, length, body)
            )

    @pytest.mark.parametrize("base", [2, 3, 10, 16, 36])
    def test_bases(self, get: Get, base: int) -> None:
        for n in (0, -6, 1000, 6_011):
            document = json.loads(get(f"/{n}?base={base}")[1])
            assert int(document["value"], base) == expected(n)
            assert document["base"] == str(base)
            assert document["digits"] == str(len(document["value"].lstrip("-")))
            assert get(f"/{n}?base={base}", TEXT)[1].decode() == document["value"]

    def test_the_last_base(self, get: Get) -> None:
        # Above 36 capitals come before small letters: in base 62, Z is 35 and z is 61.
        assert get("/14?base=62", TEXT)[1] == b"65"  # 377 = 6 * 62 + 5
        assert get("/10?base=56", TEXT)[1] == b"t"  # 55 = 36 + 19
        assert get("/10?base=36", TEXT)[1] == b"1j"  # 55 = 36 + 19
        assert get("/12?base=37", TEXT)[1] == b"3X"  # 144 = 3 * 37 + 33

    @pytest.mark.parametrize("base", ["1", "63", "0", "-2", "x", "", "016", "1e1"])
    def test_what_is_no_base(self, get: Get, base: str) -> None:
        assert get(f"/100?base={base}")[0].status == 422

    @pytest.mark.parametrize(
        ("accept", "shown"),
        [
            ("*/*", "application/json"),
            ("text/*", "text/plain"),
            ("application/json;q=0.1, text/plain;q=0.2", "text/plain"),
            ("application/octet-stream, */*;q=0.1", "application/octet-stream"),
            ("text/html, application/json;q=0.5", "application/json"),
            # Names have no case, and empty members are none (RFC 9110, 8.3.1 and 5.6.1).
            ("APPLICATION/JSON", "application/json"),
            ("Text/Plain;Q=0.9, Application/Json;q=0.1", "text/plain"),
            ("text/plain, , application/json;q=0.5", "text/plain"),
            (",,image/png,\t, TEXT/*,", "text/plain"),
            (" , ", "application/json"),
            ('text/plain;x="a,b\\",/c";q=0.9, */*;q=0.1', "text/plain"),
        ],
    )
    def test_what_accept_prefers(self, get: Get, accept: str, shown: str) -> None:
        assert get("/100", {"Accept": accept})[0].headers["Content-Type"] == shown

    @pytest.mark.parametrize(
        ("lines", "shown"),
        [
            (["image/png", "text/plain"], "text/plain"),
            (["text/plain", "application/json"], "application/json"),
            (["text/plain;q=0.5", "application/json;q=0.4", "image/*"], "text/plain"),
            (["text/plain;q=0.5 ", "*/*;q=0.4"], "text/plain"),
            (["image/*", "*/*;q=0.1", "text/*;q=0.2"], "text/plain"),
            (["image/svg+xml, text/html", "Application/Octet-Stream"], "application/octet-stream"),
            (["x-application/json, x/text", "text/plain"], "text/plain"),
            (["application/vnd.text", "audio/ogg", "text/plain"], "text/plain"),
            (['text/html;profile="http://text/plain"', "text/plain"], "text/plain"),
        ],
        ids=str,
    )
    def test_lines_of_accept_are_one_list(self, serve: Serve, lines: list[str], shown: str) -> None:
        fields = "".join(f"Accept: {line}\r\n" for line in lines)
        received = exchange(
            serve(), f"GET /api1/terms/100 HTTP/1.1\r\n{fields}Connection: close\r\n\r\n".encode()
        )
        head = received.partition(b"\r\n\r\n")[0]
        assert f"\r\ncontent-type: {shown}\r\n".encode() in head, head

    @pytest.mark.parametrize("accept", ["x-application/json", 'text/html;x="application/json"'])
    def test_a_type_within_another_is_none(self, get: Get, accept: str) -> None:
        refused(get("/100", {"Accept": accept}), 406, "application/json or text/plain")

    @pytest.mark.parametrize("repeated", ['"', '"\\', "/", "/text", "*/", ",", ";", ';x=""'])
    def test_long_accept_is_read_in_no_time(self, serve: Serve, repeated: str) -> None:
        service = serve()
        accept = "text/plain" + repeated * (70_000 // len(repeated))
        before = seconds_of_work(service.process.pid)
        service.ask("/api1/terms/100", headers={"Accept": accept})
        assert seconds_of_work(service.process.pid) - before < 0.5

    @pytest.mark.parametrize("accept", ["image/png", "text/html", "text/plain;q=0", "nonsense"])
    def test_what_it_is_not_to_be_had_as(self, get: Get, accept: str) -> None:
        refused(get("/100", {"Accept": accept}), 406, "application/json or text/plain")

    @pytest.mark.parametrize(
        "n",
        ["+5", "007", "-0", "--5", "1_000", "1e9", "0x10", "5.0", "%205", "5%0a", "%D9%A3", "x"],
    )
    @pytest.mark.parametrize("rest", ["", "/summary", "?modulo=7"])
    def test_what_is_no_index(self, get: Get, n: str, rest: str) -> None:
        refused(get(f"/{n}{rest}"), 422, "is not an index; write ")

    def test_the_limit(self, get: Get) -> None:
        for n in (MAX_TERM + 1, -MAX_TERM - 1, 10**999 + 1):
            answer = get(f"/{n}", {"Accept": "text/plain"})
            refused(answer, 422, f"F(-{MAX_TERM}) to F({MAX_TERM})")
            link = answer[0].headers["Link"]
            if n < 10**900:
                assert link == f'</api1/terms/{n}/summary>; rel="related"'
            else:
                assert link is None
        assert get("/" + "9" * 10_000 + "?modulo=7")[0].status == 200
        refused(get("/" + "9" * 10_001 + "?modulo=7"), 422, "at most 10000 digits, not 10001")

    @pytest.mark.parametrize(
        ("rest", "says"),
        [
            ("/5?bse=2", "There is no parameter 'bse' here; there is base and modulo"),
            ("/5?base=2&base=3", "base once"),
            ("/5?base=2&modulo=3", "modulo or for base, not both"),
            ("/5/summary?base=2", "there is digits"),
            ("?n=5", "there is from and count and format"),
        ],
    )
    def test_parameters(self, get: Get, rest: str, says: str) -> None:
        refused(get(rest), 422, says)

    @pytest.mark.parametrize(
        ("rest", "form"),
        [("/1000?modulo=7", JSON), ("/1000?modulo=7", TEXT), ("/-1000", OCTETS), ("/1000", TEXT)],
    )
    def test_base_10_is_the_default_wherever_it_is_given(
        self, get: Get, rest: str, form: dict[str, str]
    ) -> None:
        for method in ("GET", "HEAD"):
            reply, body = get(rest, form, method)
            base = "&base=10" if "?" in rest else "?base=10"
            given, same = get(rest + base, form, method)
            assert (reply.status, given.status) == (200, 200)
            assert same == body
            assert given.headers["Content-Type"] == reply.headers["Content-Type"]
            assert given.headers["Content-Length"] == reply.headers["Content-Length"]

    @pytest.mark.parametrize("base", ["1", "63", "x", "", "010"])
    def test_residue_in_what_is_no_base_is_refused(self, get: Get, base: str) -> None:
        refused(get(f"/5?base={base}&modulo=7"), 422, "base is ")

    def test_octets_have_no_base(self, get: Get) -> None:
        refused(get("/5?base=2", OCTETS), 422, "application/octet-stream has no base")

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
    @pytest.mark.parametrize("rest", ["", "/5", "/5/summary"])
    def test_other_methods(self, get: Get, method: str, rest: str) -> None:
        answer = get(rest, {"Accept": "image/png"}, method)
        refused(answer, 405, "see the Allow header")
        assert "GET" in answer[0].headers["Allow"]


class TestKeeping:
    FORMS = (("/1000", JSON), ("/-1000", TEXT), ("/1000", OCTETS), ("/1000?base=7", JSON))
    ASKED = (*FORMS, ("/1000?base=10", JSON), ("/99?modulo=7", JSON), ("/1000/summary", JSON))

    def test_head_says_what_get_says(self, get: Get) -> None:
        for path, headers in (*self.ASKED, ("/0", TEXT), ("/-2", OCTETS), ("/1000000", TEXT)):
            shown, body = get(path, headers)
            reply, nothing = get(path, headers, "HEAD")
            assert nothing == b""
            assert reply.status == 200
            assert reply.headers["Content-Length"] == str(len(body))
            for headers_of in (reply, shown):
                del headers_of.headers["Date"]
            assert sorted(reply.headers.items()) == sorted(shown.headers.items())

    def test_for_ever(self, get: Get) -> None:
        for path, headers in self.ASKED:
            reply, _ = get(path, headers)
            assert reply.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert reply.headers["Vary"] == "Accept"

    def test_tags_tell_representations_apart(self, get: Get) -> None:
        tags = [get(path, headers)[0].headers["ETag"] for path, headers in self.ASKED]
        assert len(set(tags)) == len(self.ASKED)
        assert all(re.fullmatch('"[^"]+"', tag) for tag in tags)
        assert tags == [get(path, headers)[0].headers["ETag"] for path, headers in self.ASKED]

    def test_not_again(self, get: Get) -> None:
        for path, headers in self.ASKED:
            tag = get(path, headers)[0].headers["ETag"]
            for known in (tag, f'"x", {tag}', f"W/{tag}", "*"):
                for method in ("GET", "HEAD"):
                    reply, body = get(path, headers | {"If-None-Match": known}, method)
                    assert (reply.status, body) == (304, b"")
                    assert reply.headers["ETag"] == tag
            assert get(path, headers | {"If-None-Match": '"x"'})[0].status == 200
            assert get(path, headers | {"If-Match": tag})[0].status == 200
            answer = get(path, headers | {"If-Match": '"x"'})
            refused(answer, 412, "another tag than If-Match")
            assert answer[0].headers["ETag"] == tag

    def test_nothing_is_computed_for_it(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nor for the length."""
        n = 123_457
        digits = expected_text(n)
        document = b'{"n":"%d","digits":"%d","value":"%b"}' % (n, len(digits), digits)
        octets = expected(n).bit_length() // 8 + 1

        def refuse(_: object) -> None:
            raise AssertionError("the term was computed")

        monkeypatch.setattr(fibonacci, "term", refuse)
        with Log(path) as log:
            client = falcon.testing.TestClient(
                create_app(log, Sequences(log), jobs(path), per_client=False)
            )

            def ask(method: str, headers: dict[str, str]) -> falcon.testing.Result:
                return client.simulate_request(method, f"/api1/terms/{n}", headers=headers)

            for form, length in ((JSON, len(document)), (TEXT, len(digits)), (OCTETS, octets)):
                reply = ask("HEAD", form)
                assert reply.headers["Content-Length"] == str(length)
                known = {"If-None-Match": reply.headers["ETag"]}
                assert ask("GET", form | known).status_code == 304
                assert ask("GET", form).status_code == 500


class TestRange:
    def test_at_random_equals_the_slice(self, get: Get) -> None:
        randomness = random.Random(6)
        for path, headers in TestKeeping.FORMS:
            whole = get(path, headers)[1]
            for _ in range(40):
                first = randomness.randrange(len(whole))
                last = randomness.randrange(first, len(whole) + 50)
                reply, part = get(path, headers | {"Range": f"bytes={first}-{last}"})
                assert reply.status == 206
                end = min(last, len(whole) - 1)
                assert reply.headers["Content-Range"] == f"bytes {first}-{end}/{len(whole)}"
                assert part == whole[first : last + 1]

    @pytest.mark.parametrize(
        ("asked", "part"),
        [
            ("bytes=0-0", slice(0, 1)),
            ("bytes=208-", slice(208, None)),
            ("bytes=-1", slice(-1, None)),
            ("bytes=-9999", slice(None)),
            ("bytes=200-9999", slice(200, None)),
        ],
    )
    def test_forms_of_it(self, get: Get, asked: str, part: slice) -> None:
        whole = expected_text(1000)
        assert len(whole) == 209
        reply, body = get("/1000", TEXT | {"Range": asked})
        assert reply.status == 206
        assert body == whole[part]

    @pytest.mark.parametrize("asked", ["bytes=209-", "bytes=209-300", "bytes=99999-", "bytes=-0"])
    def test_behind_the_end(self, get: Get, asked: str) -> None:
        answer = get("/1000", TEXT | {"Range": asked})
        refused(answer, 416, "There are 209 bytes, numbered from 0")
        assert answer[0].headers["Content-Range"] == "bytes */209"

    @pytest.mark.parametrize(
        "asked",
        [
            "bytes=0-1,5-6",
            "lines=0-1",
            "bytes=5-1",
            "bytes=x-",
            "bytes",
            "bytes=+1-2",
            "bytes=1_0-20",
            "-",
        ],
    )
    def test_what_is_none_gets_the_whole(self, get: Get, asked: str) -> None:
        reply, body = get("/1000", TEXT | {"Range": asked})
        assert reply.status == 200
        assert body == expected_text(1000)

    def test_if_range(self, get: Get) -> None:
        tag = get("/1000", TEXT)[0].headers["ETag"]
        asked = TEXT | {"Range": "bytes=3-5"}
        assert get("/1000", asked | {"If-Range": tag})[1] == expected_text(1000)[3:6]
        for other in ('"x"', f"W/{tag}", "Wed, 21 Oct 2015 07:28:00 GMT", "*"):
            reply, body = get("/1000", asked | {"If-Range": other})
            assert (reply.status, body) == (200, expected_text(1000))

    def test_a_download_that_is_resumed(self, get: Get) -> None:
        got, tag = b"", ""
        for piece in (1, 50_000, 3, 100_000, 10**9):
            asked = {"Range": f"bytes={len(got)}-{len(got) + piece - 1}"} | (
                {"If-Range": tag} if tag else {}
            )
            reply, body = get("/987654", TEXT | asked)
            assert reply.status == 206
            tag = reply.headers["ETag"]
            got += body
        assert got == expected_text(987_654)


class TestResidue:
    def test_against_the_term(self, get: Get) -> None:
        randomness = random.Random(7)
        for _ in range(60):
            n = randomness.choice([-1, 1]) * int(10 ** randomness.uniform(0, 5))
            modulus = randomness.randrange(1, 10 ** randomness.randrange(1, 50))
            residue = expected(n) % modulus
            document = {"n": str(n), "modulo": str(modulus), "residue": str(residue)}
            assert json.loads(get(f"/{n}?modulo={modulus}")[1]) == document
            assert get(f"/{n}?modulo={modulus}", TEXT)[1].decode() == str(residue)

    @pytest.mark.parametrize("digits", [20, 100, 1000, 4301, 10_000])
    def test_far_away(self, get: Get, digits: int) -> None:
        n = gmpy2.mpz("7" * digits)
        for modulus in (2, 10**9 + 7, 10**99):
            # GMP's Lucas sequence U(1, -1) is the Fibonacci sequence.
            residue = gmpy2.lucasu_mod(1, -1, n, modulus)
            assert get(f"/{n.digits()}?modulo={modulus}", TEXT)[1].decode() == str(residue)

    def test_limits(self, get: Get) -> None:
        assert get(f"/{10**999}?modulo={10**999}")[0].status == 200
        refused(get(f"/5?modulo={10**1000}"), 422, "at most 1000 digits, not 1001")
        refused(get(f"/{10**1000}?modulo={10**999}"), 422, "a modulus of at most 999 digits")
        refused(get("/5?modulo=" + "9" * 10_001), 422, "at most 10000 digits")

    @pytest.mark.parametrize("modulo", ["0", "-7", "x", "", "007", "1e3"])
    def test_what_is_no_modulus(self, get: Get, modulo: str) -> None:
        refused(get(f"/5?modulo={modulo}"), 422, "is not a modulus")

    def test_octets(self, get: Get) -> None:
        refused(get("/5?modulo=3", OCTETS), 406, "application/json or text/plain")

    def test_ranges_are_of_terms_only(self, get: Get) -> None:
        reply, body = get("/100?modulo=1000", TEXT | {"Range": "bytes=1-1"})
        assert (reply.status, body) == (200, b"75")
        assert reply.headers["Accept-Ranges"] is None


class TestSummary:
    def test_of_a_term_that_can_be_looked_at(self, get: Get) -> None:
        whole = str(abs(expected(-1000)))
        assert json.loads(get("/-1000/summary?digits=7")[1]) == {
            "n": "-1000",
            "digits": str(len(whole)),
            "leading": f"-{whole[:7]}",
            "trailing": whole[-7:],
            "bytes": str(expected(1000).bit_length() // 8 + 1),
        }
        assert json.loads(get("/1000/summary")[1])["leading"] == whole[:20]

    def test_says_what_the_term_would_cost(self, get: Get) -> None:
        for n in (LIMIT, -LIMIT + 7):
            summary = json.loads(get(f"/{n}/summary")[1])
            assert len(get(f"/{n}", TEXT)[1].lstrip(b"-")) == int(summary["digits"])
            assert len(get(f"/{n}", OCTETS)[1]) == int(summary["bytes"])

    def test_leading_digits_far_away(self, get: Get) -> None:
        """F(10^100) by libmpdec and Binet's formula."""
        with decimal.localcontext(decimal.Context(prec=700)):
            phi, root = (1 + Decimal(5).sqrt()) / 2, Decimal(5).sqrt()
            logarithm = Decimal(10**100) * phi.log10() - root.log10()
            leading = str(10 ** (logarithm % 1)).replace(".", "")
        summary = json.loads(get(f"/{10**100}/summary?digits=500")[1])
        assert summary["leading"] == leading[:500]
        assert summary["digits"] == str(int(logarithm) + 1)

    def test_last_digits_far_away(self, get: Get) -> None:
        """F(10^1000) by GMP's Lucas sequence."""
        trailing = str(gmpy2.lucasu_mod(1, -1, gmpy2.mpz(10) ** 1000, gmpy2.mpz(10) ** 500))
        summary = json.loads(get(f"/{10**1000}/summary?digits=500")[1])
        assert summary["trailing"] == trailing.zfill(500)

    def test_limits(self, get: Get) -> None:
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

    def test_is_json_only(self, get: Get) -> None:
        refused(get("/100/summary", TEXT), 406, "application/json")


class TestRow:
    def test_b_file(self, get: Get) -> None:
        """As OEIS A000045 has it, from n = 0 to 300."""
        reply, body = get("?from=0&count=301&format=bfile")
        assert reply.headers["Content-Type"] == "text/plain"
        lines, this, following = [], 0, 1
        for n in range(301):
            lines.append(f"{n} {this}\n")
            this, following = following, this + following
        assert body.decode() == "".join(lines)
        assert lines[100] == "100 354224848179261915075\n"

    def test_lines(self, get: Get) -> None:
        assert get("?from=-6&count=9", TEXT)[1].split() == b"-8 5 -3 2 -1 1 0 1 1".split()
        reply, body = get("?from=-2&count=3", LINES)
        assert reply.headers["Content-Type"] == "application/x-ndjson"
        assert body.splitlines() == [
            b'{"n":"-2","digits":"1","value":"-1"}',
            b'{"n":"-1","digits":"1","value":"1"}',
            b'{"n":"0","digits":"1","value":"0"}',
        ]

    def test_far_ones(self, get: Get) -> None:
        first = LIMIT - 5
        lines = get(f"?from={first}&count=6", TEXT)[1].splitlines()
        assert lines == [expected_text(n) for n in range(first, LIMIT + 1)]
        lines = get(f"?from={-LIMIT}&count=3", TEXT)[1].splitlines()
        assert lines == [expected_text(n) for n in range(-LIMIT, -LIMIT + 3)]

    def test_as_many_as_are_asked_for_by_the_links(self, get: Get) -> None:
        path, lines = "?from=-9999&count=20001&format=bfile", []
        replies = 0
        while path:
            reply, body = get(path)
            assert reply.status == 200
            lines += body.splitlines()
            replies += 1
            link = reply.headers["Link"]
            assert body.count(b"\n") == (MAX_LINES if link else 1)
            path = link.partition(">")[0].removeprefix("</api1/terms") if link else ""
            assert link is None or link.endswith("; rel=next")
        assert replies == 3
        assert [int(line.split()[0]) for line in lines] == list(range(-9999, 10_002))
        for n in (-9999, 0, 1, 2, 10_001):
            assert lines[n + 9999] == b"%d %b" % (n, expected_text(n))

    def test_without_a_count_there_is_always_more(self, get: Get) -> None:
        reply, body = get("")
        assert body.count(b"\n") == MAX_LINES
        assert body.startswith(b"0\n1\n1\n2\n3\n")
        assert reply.headers["Link"] == f"</api1/terms?from={MAX_LINES}>; rel=next"
        reply, body = get(f"?from={LIMIT}")
        assert body == expected_text(LIMIT) + b"\n"
        assert reply.headers["Link"] is None

    @pytest.mark.parametrize("count", [MAX_LINES, MAX_LINES + 1])
    def test_at_the_limit_and_one_past(self, get: Get, count: int) -> None:
        reply, body = get(f"?count={count}")
        assert body.count(b"\n") == MAX_LINES
        link = f"</api1/terms?count=1&from={MAX_LINES}>; rel=next" if count > MAX_LINES else None
        assert reply.headers["Link"] == link

    @pytest.mark.parametrize(
        ("query", "says"),
        [
            ("?from=1000001", "F(-1000000) to F(1000000)"),
            ("?from=-1000001", "F(-1000000) to F(1000000)"),
            ("?from=1000000&count=2", "F(-1000000) to F(1000000)"),
            ("?count=0", "at least 1"),
            ("?count=-1", "at least 1"),
            ("?count=x", "The parameter count is not a number: 'x'"),
            ("?from=", "The parameter from is not a number: ''"),
            ("?format=afile", "There is no format 'afile'; there is bfile"),
        ],
    )
    def test_refusals(self, get: Get, query: str, says: str) -> None:
        refused(get(query), 422, says)

    def test_accept(self, get: Get) -> None:
        refused(get("", {"Accept": "application/json"}), 406, "text/plain or application/x-ndjson")
        refused(get("?format=bfile", LINES), 406, "text/plain")


def far_stream(service: Service) -> socket.socket:
    """Ask for 10,000 terms of 188 thousand digits each."""
    client = socket.create_connection((service.host, service.port), timeout=20)
    client.sendall(b"GET /api1/terms?from=900000 HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.recv(12) == b"HTTP/1.1 200"
    return client


def cpu_ticks(service: Service) -> int:
    fields = Path(f"/proc/{service.process.pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def resident_bytes(service: Service) -> int:
    status = Path(f"/proc/{service.process.pid}/status").read_text()
    return int(re.search(r"VmRSS:\s*(\d+)", status)[1]) * 1024  # type: ignore[index]


@pytest.fixture
def streams() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


class TestStreaming:
    def test_in_small_chunks(self, serve: Serve) -> None:
        service = serve()
        with closing(socket.create_connection((service.host, service.port), timeout=20)) as client:
            client.sendall(b"GET /api1/terms?from=100&count=9900 HTTP/1.1\r\nHost: x\r\n\r\n")
            received = b""
            while not received.endswith(b"\r\n0\r\n\r\n"):
                received += client.recv(1 << 20)
        head, _, rest = received.partition(b"\r\n\r\n")
        assert b"transfer-encoding: chunked" in head.lower()
        sizes, lines = [], b""
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            sizes.append(int(size, 16))
            lines += rest[: sizes[-1]]
            rest = rest[sizes[-1] + 2 :]
        assert sizes[-1] == 0
        # As many lines as fill 16 KiB; the longest has 2,090 bytes.
        assert max(sizes) < (1 << 14) + 2090
        assert len(sizes) > 500
        assert lines.split() == [expected_text(n) for n in range(100, 10_000)]

    def test_others_are_served_meanwhile(self, serve: Serve, streams: ExitStack) -> None:
        service = serve()
        received = [0] * 4
        done = threading.Event()

        def read(number: int, client: socket.socket) -> None:
            while not done.is_set() and (piece := client.recv(1 << 20)):
                received[number] += len(piece)

        clients = [streams.enter_context(closing(far_stream(service))) for _ in received]
        readers = [
            threading.Thread(target=read, args=(number, client))
            for number, client in enumerate(clients)
        ]
        for reader in readers:
            reader.start()
        before = received.copy()
        for value in range(1, 101):
            service.ask("/api0/next")
            if value % 25 == 0:
                # Every one of them has gone on.
                deadline = time.monotonic() + 10
                while any(map(int.__le__, received, before)) and time.monotonic() < deadline:
                    time.sleep(0.01)
                assert all(map(int.__gt__, received, before))
                before = received.copy()
        assert service.value("current") == int(expected(100))
        # Nor have they come to their ends, after which it would be easy.
        assert max(received) < 10_000 * 188_000
        done.set()
        for reader in readers:
            reader.join()

    def test_a_client_that_leaves_leaves_nothing(self, serve: Serve) -> None:
        service = serve()
        for _ in range(3):
            with ExitStack() as clients:
                for _ in range(MAX_STREAMS):
                    clients.enter_context(closing(far_stream(service)))
                answer = service.ask("/api1/terms?count=1")
                refused(answer, 503, f"to {MAX_STREAMS} clients")
                assert answer[0].headers["Retry-After"] == "1"
                # A single term is no row of them.
                assert service.ask("/api1/terms/5")[0].status == 200
            deadline = time.monotonic() + 20
            while service.ask("/api1/terms?count=1")[0].status == 503:
                assert time.monotonic() < deadline, "a client has left, and its place is taken"
                time.sleep(0.05)
        # What nobody waits for is not computed.
        ticks = cpu_ticks(service)
        time.sleep(0.5)
        assert cpu_ticks(service) - ticks <= 5

    def test_a_client_that_does_not_read_costs_little(
        self, serve: Serve, streams: ExitStack
    ) -> None:
        service = serve()
        before = resident_bytes(service)
        for _ in range(MAX_STREAMS):
            streams.enter_context(closing(far_stream(service)))
        time.sleep(0.5)
        ticks = cpu_ticks(service)
        time.sleep(0.5)
        assert cpu_ticks(service) - ticks <= 5
        assert resident_bytes(service) - before < MAX_STREAMS * 2_000_000

    def test_a_row_that_came_to_its_end_leaves_its_place(self, serve: Serve) -> None:
        service = serve()
        with service.connect() as connection:
            for _ in range(2 * MAX_STREAMS):
                connection.request("GET", "/api1/terms?count=2")
                assert connection.getresponse().read() == b"0\n1\n"


def test_whatever_is_asked(serve: Serve) -> None:
    """Hypothesis makes up what to ask; nothing is answered but the truth or a refusal."""
    service = serve()
    with service.connect() as connection:

        @settings(max_examples=300, deadline=None)
        @given(
            n=st.one_of(
                st.integers(-3000, 3000).map(str), st.text("0123456789-+eE_. x", max_size=9)
            ),
            form=st.sampled_from([JSON, TEXT, OCTETS, {"Accept": "image/png"}, {}]),
            base=st.one_of(st.none(), st.integers(-1, 70)),
            asked=st.one_of(
                st.just(""), st.from_regex(r"bytes=[0-9]{0,4}-[0-9]{0,4}", fullmatch=True)
            ),
        )
        def ask(n: str, form: dict[str, str], base: int | None, asked: str) -> None:
            path = f"/api1/terms/{n.replace(' ', '%20')}"
            query = "" if base is None else f"?base={base}"
            connection.request("GET", path + query, headers=form | {"Range": asked})
            reply = connection.getresponse()
            body = reply.read()
            if reply.status >= 400:
                assert reply.status in (404, 406, 416, 422)
                assert reply.headers["Content-Type"] == PROBLEM
                assert json.loads(body)["status"] == reply.status
                legal = re.fullmatch("0|-?[1-9][0-9]*", n) and abs(int(n)) <= LIMIT
                fits = base is None or (2 <= base <= 62 and form != OCTETS)
                assert not (legal and fits and form != {"Accept": "image/png"}) or (
                    reply.status == 416
                )
                return
            assert reply.status in (200, 206)
            if reply.status == 206:
                found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", reply.headers["Content-Range"])
                assert found
                first, last, length = map(int, found.groups())
                connection.request("GET", path + query, headers=form)
                whole = connection.getresponse().read()
                assert len(whole) == length
                assert body == whole[first : last + 1]
                body = whole
            value = expected(int(n))
            if form == OCTETS:
                assert int.from_bytes(body, "big", signed=True) == value
            elif base is None or base <= 36:
                text = body.decode() if form == TEXT else json.loads(body)["value"]
                # Python itself reads no more than 4300 digits.
                assert gmpy2.mpz(text, base or 10) == value

        ask()
