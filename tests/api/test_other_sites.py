"""Pages of other sites can make a browser read here, but change nothing."""

import json

import pytest

from tests.service import Serve, Service

SHARED = "/api1/sequences/shared"

CHANGES = [
    ("GET", "/api0/next"),
    ("GET", "/api0/previous"),
    ("POST", f"{SHARED}/next"),
    ("POST", f"{SHARED}/previous"),
    ("PUT", SHARED),
    ("DELETE", SHARED),
    ("POST", "/api1/sequences"),
    ("DELETE", "/api1/terms/5/job"),
]

LOOKS = [
    ("GET", "/api0/current"),
    ("HEAD", "/api0/current"),
    ("GET", SHARED),
    ("GET", "/api1/terms/10"),
    ("GET", "/openapi.json"),
]


def ask(service: Service, method: str, target: str, site: str | None) -> int:
    headers = {"Sec-Fetch-Site": site} if site else {}
    body = None
    if method == "PUT":
        headers["Content-Type"] = "application/json"
        body = b'{"position":"7"}'
    return service.ask(target, method, headers, body)[0].status


@pytest.mark.parametrize("per_client", [(), ("--per-client",)])
def test_change_by_another_site_is_403(serve: Serve, per_client: tuple[str, ...]) -> None:
    service = serve(*per_client)
    service.ask(f"{SHARED}/next?by=20", "POST")
    before = service.file.read_bytes()
    for method, target in CHANGES:
        reply, body = service.ask(target, method, {"Sec-Fetch-Site": "cross-site"})
        assert reply.status == 403, target
        assert reply.headers["Content-Type"] == "application/problem+json"
        assert "another site" in json.loads(body)["detail"]
        assert "Set-Cookie" not in reply.headers
        assert service.file.read_bytes() == before, target


@pytest.mark.parametrize("site", [None, "none", "same-origin", "same-site"])
def test_change_by_the_same_site_or_no_browser_is_made(service: Service, site: str | None) -> None:
    service.ask(f"{SHARED}/next?by=20", "POST")
    statuses = [ask(service, method, target, site) for method, target in CHANGES]
    # The shared sequence cannot be deleted, and no job computes F(5).
    assert statuses == [200, 200, 200, 200, 200, 405, 201, 404]


def test_look_from_another_site_is_answered(service: Service) -> None:
    assert [ask(service, *look, "cross-site") for look in LOOKS] == [200] * len(LOOKS)


def test_origin_of_another_site_is_never_allowed(service: Service) -> None:
    """No origin is allowed, with or without a preflight request."""
    origin = {"Origin": "http://elsewhere.example"}
    for method, target in [*CHANGES, *LOOKS]:
        preflight = origin | {"Access-Control-Request-Method": method}
        for asked, headers in ((method, origin), ("OPTIONS", preflight)):
            reply, _ = service.ask(target, asked, headers)
            assert not [name for name in reply.headers if name.lower().startswith("access-")]


def test_replies_forbid_browsers_to_guess_types(serve: Serve) -> None:
    service = serve()
    for target, status in (
        ("/api1/terms/10", 200),
        ("/api1/terms?count=3", 200),
        ("/test/stats", 200),
        ("/<img src=x>", 404),
        ("/api1/terms/<img src=x>", 422),
        ("/api1/terms/10?<script>=1", 422),
    ):
        reply, _ = service.ask(target.replace("<", "%3C").replace(">", "%3E").replace(" ", "%20"))
        assert reply.status == status
        assert reply.headers["X-Content-Type-Options"] == "nosniff"
        assert "html" not in reply.headers["Content-Type"]
