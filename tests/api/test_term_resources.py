"""``/api1/terms/{n}``, as clients use it, over real sockets."""

import json
import random
import re

import gmpy2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.answers import (
    JSON,
    LIMIT,
    MAX_TERM,
    OCTETS,
    PROBLEM,
    TEXT,
    Get,
    expected,
    expected_text,
    refused,
)
from tests.service import Serve, Service, exchange, seconds_of_work


class TestTerm:
    def test_small_terms_equal_oeis_in_every_form(self, get: Get) -> None:
        # OEIS A000045 and, for negative n, A039834.
        for n, value in {-8: -21, -7: 13, -6: -8, -1: 1, 0: 0, 1: 1, 10: 55, 12: 144}.items():
            digits = len(str(abs(value)))
            document = f'{{"n":"{n}","digits":"{digits}","value":"{value}"}}'
            assert get(f"/{n}", JSON)[1].decode() == document
            assert get(f"/{n}", TEXT)[1].decode() == str(value)
            octets = get(f"/{n}", OCTETS)[1]
            assert int.from_bytes(octets, "big", signed=True) == value

    def test_terms_of_all_sizes_equal_flint(self, get: Get) -> None:
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
    def test_term_in_a_base_equals_python(self, get: Get, base: int) -> None:
        for n in (0, -6, 1000, 6_011):
            document = json.loads(get(f"/{n}?base={base}")[1])
            assert int(document["value"], base) == expected(n)
            assert document["base"] == str(base)
            assert document["digits"] == str(len(document["value"].lstrip("-")))
            assert get(f"/{n}?base={base}", TEXT)[1].decode() == document["value"]

    def test_base_above_36_has_capitals_before_small_letters(self, get: Get) -> None:
        # Above base 36, capital letters come before small ones: in base 62, Z is 35 and z is 61.
        assert get("/14?base=62", TEXT)[1] == b"65"  # 377 = 6 * 62 + 5
        assert get("/10?base=56", TEXT)[1] == b"t"  # 55 = 36 + 19
        assert get("/10?base=36", TEXT)[1] == b"1j"  # 55 = 36 + 19
        assert get("/12?base=37", TEXT)[1] == b"3X"  # 144 = 3 * 37 + 33

    @pytest.mark.parametrize("base", ["1", "63", "0", "-2", "x", "", "016", "1e1"])
    def test_text_that_is_no_base_is_422(self, get: Get, base: str) -> None:
        assert get(f"/100?base={base}")[0].status == 422

    @pytest.mark.parametrize(
        ("accept", "shown"),
        [
            ("*/*", "application/json"),
            ("text/*", "text/plain"),
            ("application/json;q=0.1, text/plain;q=0.2", "text/plain"),
            ("application/octet-stream, */*;q=0.1", "application/octet-stream"),
            ("text/html, application/json;q=0.5", "application/json"),
            # Names ignore case, and empty list members do not count (RFC 9110, 8.3.1, 5.6.1).
            ("APPLICATION/JSON", "application/json"),
            ("Text/Plain;Q=0.9, Application/Json;q=0.1", "text/plain"),
            ("text/plain, , application/json;q=0.5", "text/plain"),
            (",,image/png,\t, TEXT/*,", "text/plain"),
            (" , ", "application/json"),
            ('text/plain;x="a,b\\",/c";q=0.9, */*;q=0.1', "text/plain"),
        ],
    )
    def test_media_type_is_the_one_that_accept_prefers(
        self, get: Get, accept: str, shown: str
    ) -> None:
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
    def test_lines_of_accept_are_one_list(
        self, service: Service, lines: list[str], shown: str
    ) -> None:
        fields = "".join(f"Accept: {line}\r\n" for line in lines)
        received = exchange(
            service, f"GET /api1/terms/100 HTTP/1.1\r\n{fields}Connection: close\r\n\r\n".encode()
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
    def test_term_in_an_unknown_form_is_406(self, get: Get, accept: str) -> None:
        refused(get("/100", {"Accept": accept}), 406, "application/json or text/plain")

    @pytest.mark.parametrize(
        "n",
        ["+5", "007", "-0", "--5", "1_000", "1e9", "0x10", "5.0", "%205", "5%0a", "%D9%A3", "x"],
    )
    @pytest.mark.parametrize("rest", ["", "/summary", "?modulo=7"])
    def test_text_that_is_no_index_is_422(self, get: Get, n: str, rest: str) -> None:
        refused(get(f"/{n}{rest}"), 422, "is not an index; write ")

    def test_index_beyond_the_limit_is_422_with_a_link_to_the_summary(self, get: Get) -> None:
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
            ("/5?bse=2", "The parameter 'bse' is unknown; this takes base and modulo"),
            ("/5?base=2&base=3", "base once"),
            ("/5?base=2&modulo=3", "modulo or for base, not both"),
            ("/5/summary?base=2", "this takes digits"),
            ("?n=5", "this takes from and count and format"),
        ],
    )
    def test_wrong_parameter_is_422(self, get: Get, rest: str, says: str) -> None:
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

    def test_base_of_octets_is_422(self, get: Get) -> None:
        refused(get("/5?base=2", OCTETS), 422, "application/octet-stream has no base")

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
    @pytest.mark.parametrize("rest", ["", "/5", "/5/summary"])
    def test_other_method_is_405_whatever_is_accepted(
        self, get: Get, method: str, rest: str
    ) -> None:
        answer = get(rest, {"Accept": "image/png"}, method)
        refused(answer, 405, "see the Allow header")
        assert "GET" in answer[0].headers["Allow"]


def test_requests_of_any_kind_give_the_term_or_a_refusal(service: Service) -> None:
    """Hypothesis chooses requests; each is answered correctly or refused."""
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
                # Python itself reads at most 4,300 digits.
                assert gmpy2.mpz(text, base or 10) == value

        ask()
