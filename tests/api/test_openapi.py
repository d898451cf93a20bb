"""The OpenAPI document, compared with the standard, the routes, and replies of a real service."""

import json
import re
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import falcon.inspect
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from bigfib.api.app import create_app
from bigfib.api.commit import Committer
from bigfib.api.problems import MEDIA_TYPE, TITLES
from bigfib.api.ranges import MAX_LINES, MAX_STREAMS
from bigfib.api.representations import ValueReply
from bigfib.api.requests import MAX_BODY_BYTES
from bigfib.api.stepping import Stepping
from bigfib.jobs import State
from bigfib.numbers.fibonacci import MAX_INDEX_DIGITS
from bigfib.sequences import Sequences
from bigfib.state.log import Log
from bigfib.terms import (
    BASES,
    DEFAULT_ENDS,
    INLINE_LIMIT,
    MAX_ENDS,
    MAX_MODULUS_DIGITS,
    MAX_RESIDUE_WORK,
)
from tests.service import Serve, Service, full_disk, jobs

CONFIGURATION = Path(__file__).parent / "schemathesis.toml"

# Headers that HTTP defines need not be in the document.
OF_THE_TRANSFER = {"connection", "content-length", "content-type", "transfer-encoding"}


def resolved(document: Any, part: Any) -> Any:
    """Return the object to which a part of the document refers, or the part itself."""
    if "$ref" not in part:
        return part
    for name in part["$ref"].removeprefix("#/").split("/"):
        document = document[name]
    return document


class Asked:
    """Asks a service, and holds each answer against the document.

    Attributes:
        seen: Path, method and status of what has been answered.
        kinds: The kinds of its problems.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self.document = json.loads(service.ask("/openapi.json")[1])
        self.seen: set[tuple[str, str, str]] = set()
        self.kinds: set[str] = set()

    def __call__(
        self,
        expected: str,
        method: str,
        template: str,
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        *,
        query: str = "",
        sequence_id: str = "",
        n: str = "",
        name: str = "",
    ) -> tuple[HTTPResponse, bytes]:
        target = template.format(sequence_id=sequence_id, n=n, name=name) + query
        reply, content = self.service.ask(target, method, headers, body)
        self.check(expected, method, template, reply, content)
        return reply, content

    def check(
        self, expected: str, method: str, template: str, reply: HTTPResponse, content: bytes
    ) -> None:
        """Record the answer; assert that it is as expected, and exactly as documented."""
        where = f"{method} {template} {reply.status}"
        assert str(reply.status) == expected, (where, content[:500])
        # HEAD is answered as GET without a body, and is not documented separately.
        operation = method.lower().replace("head", "get")
        answers = self.document["paths"][template][operation]["responses"]
        assert expected in answers, where
        answer = resolved(self.document, answers[expected])
        sent = {name.lower() for name in reply.headers} - OF_THE_TRANSFER
        documented = answer.get("headers", {})
        assert sent <= set(map(str.lower, documented)), where
        for name, reference in documented.items():
            header = resolved(self.document, reference)
            value = reply.headers[name]
            assert value is not None or not header["required"], (where, name)
            if value is not None:
                assert re.search(header["schema"].get("pattern", ""), value), (where, name)
                assert header["schema"].get("const", value) == value, (where, name)
        if method == "HEAD" or not content:
            assert not content, where
        else:
            media_type = reply.headers["Content-Type"]
            assert media_type in answer["content"], where
            if media_type == MEDIA_TYPE:
                self.check_problem(json.loads(content))
        self.seen.add((template, operation, expected))

    def check_problem(self, problem: dict[str, Any]) -> None:
        """Assert that the kind is documented, with its title, and that the detail is a sentence."""
        kinds = self.document["components"]["schemas"]["Problem"]["properties"]["type"]["enum"]
        assert problem["type"] in kinds, problem
        kind = problem["type"].rpartition(":")[2]
        assert problem["title"] == TITLES.get(kind, problem["title"])
        assert re.match("[A-Z'/]", problem["detail"]), problem
        assert re.search(r"[^.\s]\.$", problem["detail"]), problem
        self.kinds.add(kind)

    def documented(self) -> set[tuple[str, str, str]]:
        return {
            (path, method, status)
            for path, item in self.document["paths"].items()
            for method, operation in item.items()
            if method != "parameters"
            for status in operation["responses"]
        }


@contextmanager
def as_many_streams_as_there_may_be(service: Service) -> Iterator[None]:
    """Request many rows of terms, and read none."""
    with ExitStack() as connections:
        for _ in range(MAX_STREAMS):
            client = connections.enter_context(
                closing(socket.create_connection((service.host, service.port)))
            )
            client.sendall(b"GET /api1/terms?from=900000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
        yield


class TestDocument:
    def test_document_is_valid_openapi_3_1(self, service: Service) -> None:
        reply, body = service.ask("/openapi.json")
        assert reply.headers["Content-Type"] == "application/json"
        document = json.loads(body)
        assert document["openapi"] == "3.1.0"
        assert list(OpenAPIV31SpecValidator(document).iter_errors()) == []

    def test_document_has_every_route_and_no_other(self, serve: Serve, path: Path) -> None:
        document = json.loads(serve().ask("/openapi.json")[1])
        documented = {
            (route, method.upper())
            for route, item in document["paths"].items()
            for method in item
            if method != "parameters"
        }
        with Log(path.with_name("other")) as log:
            sequences = Sequences(log)
            app = create_app(log, sequences, jobs(path), per_client=False)
            routed = {
                (route.path, method.method)
                for route in falcon.inspect.inspect_routes(app.routed)
                for method in route.methods
                if not method.internal
            }
            stepping = Stepping(sequences, ValueReply(Committer(log)), per_client=False)
            routed |= {
                (route, method) for route, methods in stepping.routes.items() for method in methods
            }
        assert documented == {
            (route, method) for route, method in routed if method not in ("HEAD", "OPTIONS")
        }

    def test_every_operation_is_named_and_described_and_every_reply_has_an_example(
        self, serve: Serve
    ) -> None:
        document = json.loads(serve().ask("/openapi.json")[1])
        tags = {tag["name"] for tag in document["tags"]}
        operations = [
            operation
            for item in document["paths"].values()
            for method, operation in item.items()
            if method != "parameters"
        ]
        names = [operation["operationId"] for operation in operations]
        assert len(names) == len(set(names))
        for operation in operations:
            assert re.fullmatch("[a-z]+([A-Z][a-z]+)+", operation["operationId"])
            assert set(operation["tags"]) <= tags
            assert operation["summary"], operation
            assert operation["description"], operation
            for status, reference in operation["responses"].items():
                for content in resolved(document, reference).get("content", {}).values():
                    assert content["schema"], (operation["operationId"], status)
                    assert content["example"], (operation["operationId"], status)

    def test_change_of_a_sequence_has_both_conditions(self, service: Service) -> None:
        document = json.loads(service.ask("/openapi.json")[1])
        for path, method in (
            *((SEQUENCE, "put"), (SEQUENCE, "delete"), (NEXT, "post"), (PREVIOUS, "post")),
        ):
            operation = document["paths"][path][method]
            parameters = [resolved(document, one) for one in operation["parameters"]]
            headers = {one["name"] for one in parameters if one["in"] == "header"}
            assert headers == {"If-Match", "If-None-Match"}
            unmet = resolved(document, operation["responses"]["412"])
            assert "If-None-Match" in unmet["description"]

    def test_limits_are_those_of_the_code(self, serve: Serve) -> None:
        document = json.loads(serve("--max-term", "2000000").ask("/openapi.json")[1])
        parameters = document["components"]["parameters"]
        schemas = {name: one["schema"] for name, one in parameters.items()}
        in_a_row = {
            one["name"]: one["schema"] for one in document["paths"][TERMS]["get"]["parameters"]
        }
        assert schemas["N"]["maxLength"] == MAX_INDEX_DIGITS + 1
        assert schemas["Modulo"]["maxLength"] == MAX_MODULUS_DIGITS
        assert (schemas["Base"]["minimum"], schemas["Base"]["maximum"]) == (BASES[0], BASES[-1])
        assert (schemas["Digits"]["default"], schemas["Digits"]["maximum"]) == (
            DEFAULT_ENDS,
            MAX_ENDS,
        )
        assert in_a_row["from"]["minimum"] == -INLINE_LIMIT
        assert in_a_row["from"]["maximum"] == INLINE_LIMIT
        states = document["components"]["schemas"]["Job"]["properties"]["state"]["enum"]
        assert states == [state.value for state in State]
        text = json.dumps(document)
        for named in (
            f"of at most {MAX_INDEX_DIGITS} digits; from -2000000 to 2000000 where",
            f"beyond {INLINE_LIMIT} either way",
            f"come to {MAX_RESIDUE_WORK} at most",
            f"up to F({INLINE_LIMIT})",
            f"At most {MAX_LINES} of them",
            f"There are {MAX_STREAMS} such replies",
            f"longer than {MAX_BODY_BYTES} bytes",
        ):
            assert named in text


SEQUENCES, SEQUENCE = "/api1/sequences", "/api1/sequences/{sequence_id}"
NEXT, PREVIOUS = f"{SEQUENCE}/next", f"{SEQUENCE}/previous"
TERMS, TERM, SUMMARY = "/api1/terms", "/api1/terms/{n}", "/api1/terms/{n}/summary"
JOB, INDEX = f"{TERM}/job", "/api1/index"

# A position whose terms are not computed inline, and a large term.
FAR = 1_500_000
LARGE = 6_000_000


class TestAnswers:
    def test_every_documented_answer_is_given_and_no_other(self, serve: Serve, path: Path) -> None:
        away = secrets.token_bytes(16)
        with Log(path) as log:
            log.note(away, FAR)
        cache = path.with_name("cache")
        # Nothing can be stored in this cache.
        cache.write_text("")
        ask = Asked(serve("--per-client"))
        self._large_terms(ask, cache, away.hex())
        self._sequences(ask)
        for method in ("GET", "HEAD"):
            self._terms(ask, method)
        self._index(ask)
        self._stepping(ask)
        self._page(ask)
        for method in ("GET", "HEAD"):
            for template in ("/livez", "/readyz", "/metrics", "/test/stats", "/openapi.json"):
                ask("200", method, template)
        every = ask.documented()
        for template, method, _ in sorted(every):
            if "403" in ask.document["paths"][template][method]["responses"]:
                headers = {"Sec-Fetch-Site": "cross-site"}
                ask("403", method.upper(), template, headers, sequence_id="shared", n="1")
            # This is longer than bjoern's parser accepts.
            if (method, template) not in (("put", SEQUENCE), ("post", INDEX)):
                ask(
                    "400",
                    method.upper(),
                    template,
                    {"X": "x" * 82_000},
                    sequence_id="shared",
                    n="1",
                    name="page.css",
                )
        # A state log has no unknown outcome; see tests/shared_store. Any request may be
        # misdirected; see test_hosts.py.
        assert ask.kinds == {*TITLES, "blank"} - {"unknown-outcome", "misdirected"}
        # A failure of the service itself is not had by asking; see test_stepping.py. A state log is
        # not lost while the service runs; see tests/shared_store.
        lost = {(SEQUENCES, "post"), (SEQUENCE, "delete"), ("/readyz", "get")}
        assert ask.seen == {
            (template, method, status)
            for template, method, status in every
            if status != "500" and not (status == "503" and (template, method) in lost)
        }

    @staticmethod
    def _large_terms(ask: Asked, cache: Path, away: str) -> None:
        cookie = {"Cookie": f"bigfib={away}"}
        json_type = {"Content-Type": "application/json"}
        for name in ("current", "next", "previous"):
            ask("503", "GET", f"/api0/{name}", cookie)
        ask("503", "HEAD", "/api0/current", cookie)
        for method in ("GET", "HEAD"):
            ask("503", method, SEQUENCE, sequence_id=away)
        for template in (NEXT, PREVIOUS):
            ask("503", "POST", template, sequence_id=away)
        position = b'{"position":"%d"}' % (FAR + 5)
        ask("503", "PUT", SEQUENCE, json_type, position, sequence_id="shared")
        ask.service.ask(JOB.format(n=FAR + 5), "DELETE")
        n = str(LARGE)
        ask("202", "GET", TERM, n=n)
        for method in ("GET", "HEAD"):
            ask("200", method, JOB, n=n)
            ask("404", method, JOB, n="5")
            ask("422", method, JOB, n="x")
        while ask.service.ask(TERM.format(n=n))[0].status == 202:
            pass
        ask("503", "GET", TERM, n=n)
        ask("204", "DELETE", JOB, n=n)
        ask("404", "DELETE", JOB, n=n)
        ask("422", "DELETE", JOB, query="?x=1", n=n)
        cache.unlink()
        for accept in ("application/json", "text/plain"):
            while ask.service.ask(TERM.format(n=n))[0].status == 202:
                pass
            ask("200", "GET", TERM, {"Accept": accept}, n=n)
            ask("206", "GET", TERM, {"Accept": accept, "Range": "bytes=5-9"}, n=n)

    def _sequences(self, ask: Asked) -> None:
        reply, body = ask("201", "POST", SEQUENCES)
        one: str = json.loads(body)["id"]
        none = "0" * 32
        assert reply.headers["Location"] == SEQUENCE.format(sequence_id=one)
        ask("422", "POST", SEQUENCES, query="?x=1")
        stale = {"If-Match": '"7"'}
        for method in ("GET", "HEAD"):
            ask("200", method, SEQUENCE, sequence_id=one)
            ask("304", method, SEQUENCE, {"If-None-Match": "*"}, sequence_id=one)
            ask("404", method, SEQUENCE, sequence_id=none)
            ask("412", method, SEQUENCE, stale, sequence_id=one)
            ask("422", method, SEQUENCE, query="?x=1", sequence_id=one)
        ask("409", "POST", PREVIOUS, sequence_id=one)
        for template in (NEXT, PREVIOUS):
            ask("200", "POST", template, sequence_id=one)
            ask("404", "POST", template, sequence_id=none)
            for unmet in (stale, {"If-None-Match": "*"}):
                ask("412", "POST", template, unmet, sequence_id=one)
            ask("422", "POST", template, query="?by=0", sequence_id=one)
        self._put(ask, one, none)
        ask("404", "DELETE", SEQUENCE, sequence_id=none)
        ask("405", "DELETE", SEQUENCE, sequence_id="shared")
        ask("412", "DELETE", SEQUENCE, stale, sequence_id=one)
        ask("422", "DELETE", SEQUENCE, query="?x=1", sequence_id=one)
        with full_disk(ask.service):
            ask("507", "POST", SEQUENCES)
            ask("507", "POST", NEXT, sequence_id=one)
            ask("507", "POST", PREVIOUS, sequence_id=one)
            ask("507", "DELETE", SEQUENCE, sequence_id=one)
        ask("204", "DELETE", SEQUENCE, sequence_id=one)

    @staticmethod
    def _put(ask: Asked, one: str, none: str) -> None:
        json_type = {"Content-Type": "application/json"}
        at_five = b'{"position":"5"}'
        ask("200", "PUT", SEQUENCE, json_type, at_five, sequence_id=one)
        another = secrets.token_hex(16)
        for status in ("201", "412"):
            ask(status, "PUT", SEQUENCE, {"If-None-Match": "*"}, sequence_id=another)
        ask("400", "PUT", SEQUENCE, json_type, b"{", sequence_id=one)
        ask("400", "PUT", SEQUENCE, json_type, sequence_id=one)
        with ask.service.connect() as connection:
            connection.request(
                "PUT",
                SEQUENCE.format(sequence_id=one),
                iter([at_five]),
                json_type,
                encode_chunked=True,
            )
            answer = connection.getresponse()
            ask.check("411", "PUT", SEQUENCE, answer, answer.read())
        ask("413", "PUT", SEQUENCE, json_type, b" " * (1 << 20) + b"1", sequence_id=one)
        ask("415", "PUT", SEQUENCE, {"Content-Type": "text/plain"}, at_five, sequence_id=one)
        ask("422", "PUT", SEQUENCE, json_type, b'{"position":5}', sequence_id=one)
        ask("404", "PUT", SEQUENCE, json_type, at_five, sequence_id=none)
        ask("412", "PUT", SEQUENCE, json_type | {"If-Match": '"7"'}, at_five, sequence_id=one)
        with full_disk(ask.service):
            ask("507", "PUT", SEQUENCE, json_type, at_five, sequence_id=one)

    @staticmethod
    def _terms(ask: Asked, method: str) -> None:
        for accept in ("application/json", "text/plain", "application/octet-stream"):
            reply, _ = ask("200", method, TERM, {"Accept": accept}, n="1000")
            tag = {"If-None-Match": reply.headers["ETag"], "Accept": accept}
            ask("304", method, TERM, tag, n="1000")
            # Range has no effect on HEAD (RFC 9110, 14.2).
            if method == "GET":
                ask("206", method, TERM, {"Accept": accept, "Range": "bytes=1-2"}, n="1000")
        ask("200", method, TERM, query="?modulo=7", n="1000")
        reply, _ = ask("200", method, SUMMARY, n="1000")
        ask("304", method, SUMMARY, {"If-None-Match": reply.headers["ETag"]}, n="1000")
        if method == "GET":
            ask("416", method, TERM, {"Range": "bytes=9999-"}, n="1000")
        for template in (TERM, SUMMARY):
            ask("406", method, template, {"Accept": "image/png"}, n="1000")
            ask("412", method, template, {"If-Match": '"x"'}, n="1000")
            ask("422", method, template, n="007")
        reply, _ = ask("422", method, TERM, n="100000001")
        assert "/summary" in reply.headers["Link"]
        if method == "GET":
            for accept in ("text/plain", "application/x-ndjson"):
                ask("200", method, TERMS, {"Accept": accept}, query="?count=3")
            ask("406", method, TERMS, {"Accept": "image/png"})
            ask("422", method, TERMS, query="?from=x")
            with as_many_streams_as_there_may_be(ask.service):
                ask("503", method, TERMS)

    @staticmethod
    def _index(ask: Asked) -> None:
        for method in ("GET", "HEAD"):
            reply, _ = ask("200", method, INDEX, query="?value=55")
            tag = {"If-None-Match": reply.headers["ETag"]}
            ask("304", method, INDEX, tag, query="?value=55")
            ask("404", method, INDEX, query="?value=56")
            ask("406", method, INDEX, {"Accept": "text/html"}, query="?value=55")
            ask("412", method, INDEX, {"If-Match": '"x"'}, query="?value=55")
            ask("422", method, INDEX)
        text = {"Content-Type": "text/plain"}
        ask("200", "POST", INDEX, text, b"55")
        ask("400", "POST", INDEX, text | {"Content-Range": "bytes 0-1/2"}, b"55")
        ask("404", "POST", INDEX, text, b"56")
        ask("406", "POST", INDEX, text | {"Accept": "text/html"}, b"55")
        with ask.service.connect() as connection:
            connection.request("POST", INDEX, iter([b"55"]), text, encode_chunked=True)
            answer = connection.getresponse()
            ask.check("411", "POST", INDEX, answer, answer.read())
        ask("413", "POST", INDEX, text, b"1" * ((1 << 20) + 1))
        ask("415", "POST", INDEX, {"Content-Type": "text/html"}, b"55")
        ask("422", "POST", INDEX, text, b"x")
        ask("503", "POST", INDEX, text, b"1" * 1_048_000)

    @staticmethod
    def _page(ask: Asked) -> None:
        for method in ("GET", "HEAD"):
            reply, _ = ask("200", method, "/")
            ask("304", method, "/", {"If-None-Match": reply.headers["ETag"]})
            for name in ("page.css", "sequence.js", "icon.svg"):
                reply, _ = ask("200", method, "/page/{name}", name=name)
                tag = {"If-None-Match": reply.headers["ETag"]}
                ask("304", method, "/page/{name}", tag, name=name)
            ask("404", method, "/page/{name}", name="none.css")
            reply, _ = ask("200", method, "/docs")
            ask("304", method, "/docs", {"If-None-Match": reply.headers["ETag"]})
            for name in ("swagger-ui.css", "swagger-ui-bundle.js"):
                reply, _ = ask("200", method, "/docs/{name}", name=name)
                tag = {"If-None-Match": reply.headers["ETag"]}
                ask("304", method, "/docs/{name}", tag, name=name)
            ask("404", method, "/docs/{name}", name="none.css")

    @staticmethod
    def _stepping(ask: Asked) -> None:
        for method in ("GET", "HEAD"):
            ask("200", method, "/api0/current")
        reply, _ = ask("200", "GET", "/api0/next")
        cookie = {"Cookie": reply.headers["Set-Cookie"].partition(";")[0]}
        ask("200", "GET", "/api0/previous", cookie)
        ask("409", "GET", "/api0/previous", cookie)
        ask("200", "GET", "/api0/next", cookie)
        with full_disk(ask.service):
            ask("507", "GET", "/api0/next", cookie)
            ask("507", "GET", "/api0/previous", cookie)


@pytest.mark.campaign
def test_schemathesis_finds_nothing(serve: Serve, times: int) -> None:
    """No 5xx, no undocumented status, header or media type, no document that breaks its schema."""
    # Without large terms: Schemathesis takes their 503 for a failure.
    service = serve("--max-term", "1000000")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", CONFIGURATION, "run"),
            *("--checks", "all", "--max-examples", str(6 * times), "--no-color"),
            f"{service.url}/openapi.json",
        ],
        cwd=service.file.parent,
        capture_output=True,
        text=True,
        timeout=300 * times,
        check=False,
    )
    said = "\n".join(line[:300] for line in done.stdout.splitlines())
    assert done.returncode == 0, said + done.stderr
    assert int(re.search(r"(\d+) generated", said)[1]) > 500, said  # type: ignore[index]
    assert service.process.poll() is None
