"""What pages of other origins may read where ``--cors-origin`` allows it: terms."""

import pytest

from tests.service import Serve, Service

SITE = "https://fib.example"

READABLE = [
    "/api1/terms/10",
    "/api1/terms/10?modulo=7",
    "/api1/terms/x",
    "/api1/terms/10/summary",
    "/api1/terms?count=3",
    "/api1/index?value=55",
    "/api1/index?value=4",
]

PRIVATE = [
    "/api0/current",
    "/api1/sequences/shared",
    "/api1/terms/10/job",
    "/metrics",
    "/livez",
    "/openapi.json",
    "/",
    "/nothing",
]


def allowed(service: Service, target: str, method: str = "GET", **headers: str) -> str | None:
    """Return the origin that may read the reply."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reply, _ = service.ask(target, method, {"Origin": SITE, **named})
    others = [name for name in reply.headers if name.lower().startswith("access-control-")]
    origin = reply.headers["Access-Control-Allow-Origin"]
    assert bool(others) == bool(origin)
    return origin


@pytest.mark.parametrize("origins", [SITE, f"http://a.example:81,{SITE}", "*"])
def test_named_origin_reads_terms_and_nothing_else(serve: Serve, origins: str) -> None:
    service = serve("--cors-origin", origins)
    expected = "*" if origins == "*" else SITE
    for target in READABLE:
        assert allowed(service, target) == expected, target
        assert allowed(service, target, "HEAD") == expected or "count=" in target, target
    for target in PRIVATE:
        assert allowed(service, target) is None, target


def test_caches_know_that_a_reply_to_no_origin_is_another(serve: Serve) -> None:
    # The one without Access-Control-Allow-Origin would be kept for a year, for pages too.
    reply, _ = serve("--cors-origin", "*").ask("/api1/terms/10")
    assert "Origin" in reply.headers["Vary"]


def test_other_origin_reads_nothing_and_caches_know_that(serve: Serve) -> None:
    service = serve("--cors-origin", "https://a.example")
    assert [allowed(service, target) for target in READABLE] == [None] * len(READABLE)
    for headers in ({"Origin": SITE}, {"Origin": "https://a.example"}, {}):
        reply, _ = service.ask("/api1/terms/10", headers=headers)
        assert "Origin" in reply.headers["Vary"]
    reply, _ = service.ask("/api1/terms/10", headers={"Origin": "https://a.example"})
    assert {"ETag", "Repr-Digest"} <= set(
        reply.headers["Access-Control-Expose-Headers"].split(", ")
    )
    assert "Access-Control-Allow-Credentials" not in reply.headers


def test_preflight_allows_reads_of_terms_only(serve: Serve) -> None:
    service = serve("--cors-origin", SITE)

    def preflight(target: str, method: str) -> tuple[str | None, str | None]:
        headers = {
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "range",
        }
        reply, _ = service.ask(target, "OPTIONS", {"Origin": SITE, **headers})
        return (
            reply.headers["Access-Control-Allow-Methods"],
            reply.headers["Access-Control-Allow-Headers"],
        )

    for target in READABLE:
        assert preflight(target, "GET") == ("GET, HEAD", "range")
    # A page may not POST there, although the service has it.
    assert preflight("/api1/index", "POST") == ("GET, HEAD", "range")
    for target in ("/api1/sequences/shared/next", "/api1/sequences", "/api1/terms/10/job"):
        assert preflight(target, "POST") == (None, None)
    headers = {"Sec_Fetch_Site": "cross-site", "Content_Type": "text/plain"}
    assert allowed(service, "/api1/index", "POST", **headers) is None
