"""``/api1/index``, as clients use it."""

import json

import pytest
from flint import fmpz

from tests.service import Serve, Service, until

INDEX = "/api1/index"
TEXT = {"Content-Type": "text/plain"}


def post(service: Service, value: str) -> tuple[int, dict[str, object]]:
    reply, body = service.ask(INDEX, "POST", TEXT, value.encode())
    return reply.status, json.loads(body)


def test_value_in_the_query_has_its_index(serve: Serve) -> None:
    service = serve()
    for value, n in {
        "0": ["0"],
        "1": ["1", "2"],
        "-8": ["-6"],
        "354224848179261915075": ["100"],
    }.items():
        reply, body = service.ask(f"{INDEX}?value={value}")
        assert (reply.status, json.loads(body)) == (200, {"value": value, "n": n})
        assert "immutable" in reply.headers["Cache-Control"]
        again, _ = service.ask(
            f"{INDEX}?value={value}", headers={"If-None-Match": reply.headers["ETag"]}
        )
        assert again.status == 304


def test_value_between_terms_is_404_with_their_indices(serve: Serve) -> None:
    service = serve()
    for value, neighbours in {"4": ["4", "5"], "-5": ["-6", "-4"], "10": ["6", "7"]}.items():
        reply, body = service.ask(f"{INDEX}?value={value}")
        problem = json.loads(body)
        assert (reply.status, problem["neighbours"]) == (404, neighbours)
        assert f"between F({neighbours[0]}) and F({neighbours[1]})" in problem["detail"]
        assert post(service, value)[1]["neighbours"] == neighbours


@pytest.mark.parametrize("value", ["", "1e6", "007", "+5", "x", "%D9%A1", "5&x=1", "5&value=5"])
def test_what_is_no_value_is_refused(serve: Serve, value: str) -> None:
    assert serve().ask(f"{INDEX}?value={value}")[0].status == 422


def test_body_of_200_thousand_digits_is_found_as_its_file_has_it(serve: Serve) -> None:
    service = serve()
    digits = fmpz.fib_ui(fmpz(999_999)).str(base=10)
    for end in ("", "\n", "\r\n"):
        assert post(service, digits + end) == (200, {"value": digits, "n": ["999999"]})
    assert post(service, digits[:-1] + "0")[0] == 404


def test_body_that_is_too_long_or_of_another_type_is_refused(serve: Serve) -> None:
    service = serve()
    assert post(service, "1" * ((1 << 20) + 1))[0] == 413
    reply, body = service.ask(INDEX, "POST", {"Content-Type": "application/json"}, b"55")
    assert (reply.status, json.loads(body)["detail"]) == (415, "Send the body as text/plain.")
    assert post(service, "5 5")[0] == post(service, "")[0] == 422


def test_value_as_long_as_a_large_term_waits_for_its_computation(serve: Serve) -> None:
    """The longest body is longer than any term that is computed inline."""
    service = serve()
    n = 5_010_000
    digits = fmpz.fib_ui(fmpz(n)).str(base=10)
    reply, _ = service.ask(INDEX, "POST", TEXT, digits.encode())
    assert (reply.status, reply.headers["Link"]) == (503, f'</api1/terms/{n}/job>; rel="monitor"')
    assert int(reply.headers["Retry-After"]) >= 1
    until(lambda: post(service, digits)[0] != 503)
    assert post(service, digits) == (200, {"value": digits, "n": [str(n)]})
    assert post(service, digits[:-1] + str(9 - int(digits[-1])))[0] == 404


def test_value_longer_than_any_term_that_is_given_is_refused(serve: Serve) -> None:
    status, problem = post(serve("--max-term", "1000000"), "1" * 1_048_000)
    assert (status, "from F(-1000000) to F(1000000)" in str(problem["detail"])) == (422, True)
