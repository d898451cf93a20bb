"""Terms never change: tags, preconditions and caching."""

import re
from pathlib import Path

import falcon.testing
import pytest

from bigfib.api.app import create_app
from bigfib.numbers import fibonacci
from bigfib.sequences import Sequences
from bigfib.state.log import Log
from tests.api.answers import JSON, OCTETS, TEXT, Get, expected, expected_text, refused
from tests.service import jobs


class TestKeeping:
    FORMS = (("/1000", JSON), ("/-1000", TEXT), ("/1000", OCTETS), ("/1000?base=7", JSON))
    ASKED = (*FORMS, ("/1000?base=10", JSON), ("/99?modulo=7", JSON), ("/1000/summary", JSON))

    def test_head_of_a_term_equals_get(self, get: Get) -> None:
        for path, headers in (*self.ASKED, ("/0", TEXT), ("/-2", OCTETS), ("/1000000", TEXT)):
            shown, body = get(path, headers)
            reply, nothing = get(path, headers, "HEAD")
            assert nothing == b""
            assert reply.status == 200
            assert reply.headers["Content-Length"] == str(len(body))
            for headers_of in (reply, shown):
                del headers_of.headers["Date"]
            assert sorted(reply.headers.items()) == sorted(shown.headers.items())

    def test_term_may_be_cached_for_ever(self, get: Get) -> None:
        for path, headers in self.ASKED:
            reply, _ = get(path, headers)
            assert reply.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert reply.headers["Vary"] == "Accept"

    def test_representations_have_different_stable_tags(self, get: Get) -> None:
        tags = [get(path, headers)[0].headers["ETag"] for path, headers in self.ASKED]
        assert len(set(tags)) == len(self.ASKED)
        assert all(re.fullmatch('"[^"]+"', tag) for tag in tags)
        assert tags == [get(path, headers)[0].headers["ETag"] for path, headers in self.ASKED]

    def test_term_under_a_known_tag_is_304(self, get: Get) -> None:
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
            refused(answer, 412, "If-Match does not name this version")
            assert answer[0].headers["ETag"] == tag

    def test_head_and_304_compute_nothing(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not even its length is computed."""
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
