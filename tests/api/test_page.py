"""The files of the page, as they are sent."""

import re
from collections.abc import Iterator
from pathlib import Path

import falcon.testing
import pytest

import bigfib
from bigfib.api.app import create_app
from bigfib.sequences import Sequences
from bigfib.state.log import Log
from tests.service import jobs

FILES = Path(bigfib.__file__).parent / "page"

PARTS = sorted(file.name for file in FILES.iterdir() if file.name != "index.html")

TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
}

POLICY = {
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
}


@pytest.fixture
def client(path: Path) -> Iterator[falcon.testing.TestClient]:
    with Log(path) as log:
        app = create_app(log, Sequences(log), jobs(path), per_client=False)
        yield falcon.testing.TestClient(app)


def test_page_is_html_with_its_own_address(client: falcon.testing.TestClient) -> None:
    reply = client.simulate_get("/")
    assert reply.status_code == 200
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    content = (FILES / "index.html").read_text("utf-8")
    assert reply.text == content.replace("{origin}", "http://falconframework.org")
    assert reply.content.decode("utf-8").startswith("<!DOCTYPE html>")
    assert '<meta charset="utf-8">' in reply.text


def test_page_needs_nothing_that_is_not_served(client: falcon.testing.TestClient) -> None:
    text = client.simulate_get("/").text
    named = set(re.findall(r'(?:href|src)="([^"]+)"', text))
    named |= set(re.findall(r'"http://falconframework.org(/page/[^"]+)"', text))
    for name in PARTS:
        if name.endswith(".js"):
            script = (FILES / name).read_text()
            named |= {f"/page/{other}" for other in re.findall(r'from "\./([^"]+)"', script)}
            named |= set(re.findall(r'new Worker\("([^"]+)"', script))
    assert {f"/page/{name}" for name in PARTS} <= named
    for target in named:
        assert client.simulate_get(target).status_code == 200, target


@pytest.mark.parametrize("target", ["/", *(f"/page/{name}" for name in PARTS)])
class TestEach:
    def test_file_has_a_strict_policy(self, client: falcon.testing.TestClient, target: str) -> None:
        headers = client.simulate_get(target).headers
        assert set(headers["Content-Security-Policy"].split("; ")) == POLICY
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"

    def test_file_is_sent_again_only_if_it_has_changed(
        self, client: falcon.testing.TestClient, target: str
    ) -> None:
        first = client.simulate_get(target)
        assert first.headers["Cache-Control"] == "no-cache"
        assert re.fullmatch('"[0-9a-f]{16}"', first.headers["ETag"])
        for known in (first.headers["ETag"], f'"x", {first.headers["ETag"]}', "*"):
            again = client.simulate_get(target, headers={"If-None-Match": known})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["ETag"] == first.headers["ETag"]
        other = client.simulate_get(target, headers={"If-None-Match": '"x"'})
        assert (other.status_code, other.content) == (200, first.content)

    def test_head_of_a_file_equals_get(
        self, client: falcon.testing.TestClient, target: str
    ) -> None:
        got, told = client.simulate_get(target), client.simulate_head(target)
        assert (told.status_code, told.content) == (200, b"")
        assert {**told.headers, "date": ""} == {**got.headers, "date": ""}
        assert told.headers["Content-Length"] == str(len(got.content))

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
    def test_file_by_another_method_is_405(
        self, client: falcon.testing.TestClient, target: str, method: str
    ) -> None:
        reply = client.simulate_request(method, target)
        assert reply.status_code == 405
        assert set(reply.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}
        assert reply.headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("name", PARTS)
def test_file_has_its_type(client: falcon.testing.TestClient, name: str) -> None:
    reply = client.simulate_get(f"/page/{name}")
    assert reply.headers["Content-Type"] == TYPES[name.rpartition(".")[2]]
    assert reply.content == (FILES / name).read_bytes()
    if not name.endswith(".png"):
        assert reply.content.decode("utf-8")


def test_the_page_names_its_address_as_the_client_or_its_proxy_knows_it(
    client: falcon.testing.TestClient,
) -> None:
    tags = set()
    for headers, origin in (
        ({"Host": "fib.example:8080"}, "http://fib.example:8080"),
        ({"X-Forwarded-Proto": "https", "Host": "fib.example"}, "https://fib.example"),
        ({"Host": 'x"><script>'}, "http://x&quot;&gt;&lt;script&gt;"),
    ):
        reply = client.simulate_get("/", headers=headers)
        assert f'<meta property="og:url" content="{origin}/">' in reply.text
        assert "{origin}" not in reply.text
        tags.add(reply.headers["ETag"])
    assert len(tags) == 3


def test_files_have_different_tags(client: falcon.testing.TestClient) -> None:
    tags = {client.simulate_get(f"/page/{name}").headers["ETag"] for name in PARTS}
    assert len(tags) == len(PARTS) > 3


@pytest.mark.parametrize("name", ["none.css", "index.html", "..", "page.css/", "%2e%2e%2fpage.css"])
def test_unknown_file_is_404(client: falcon.testing.TestClient, name: str) -> None:
    reply = client.simulate_get(f"/page/{name}")
    assert reply.status_code == 404
    assert reply.json["title"] == "Not Found"
