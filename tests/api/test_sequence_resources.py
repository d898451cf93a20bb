"""``/api1/sequences`` as clients meet it, on real sockets."""

import json
import random
import re
import signal
import socket
import struct
import threading
from collections import Counter
from contextlib import closing
from http.client import HTTPException, HTTPResponse
from io import BytesIO
from pathlib import Path
from typing import Any

import falcon.testing
import pytest
from flint import fmpz
from hypothesis import given, settings
from hypothesis import strategies as st

from bigfib.api.app import create_app
from bigfib.sequences import Sequences, parse_id
from bigfib.state import reader
from bigfib.state.log import Log
from tests.service import Serve, Service, jobs

COLLECTION = "/api1/sequences"
SHARED = f"{COLLECTION}/shared"
FARTHEST = 1_000_000
JSON = {"Content-Type": "application/json"}


def term(position: int) -> str:
    return fmpz.fib_ui(fmpz(position)).str(base=10)


def document_at(sequence_id: str, position: int) -> bytes:
    digits = term(position)
    return (
        f'{{"id":"{sequence_id}","position":"{position}","digits":"{len(digits)}",'
        f'"value":"{digits}"}}'
    ).encode()


def created(service: Service) -> str:
    """Create a sequence and return its path."""
    reply, _ = service.ask(COLLECTION, "POST")
    assert reply.status == 201
    return reply.headers["Location"]


def put(service: Service, path: str, position: int | str) -> tuple[HTTPResponse, bytes]:
    return service.ask(path, "PUT", JSON, json.dumps({"position": str(position)}).encode())


def position(service: Service, path: str) -> int:
    reply, body = service.ask(path)
    assert reply.status == 200, body
    return int(json.loads(body)["position"])


def refused(
    answer: tuple[HTTPResponse, bytes], status: int, says: str = "", **members: str
) -> None:
    """Assert that the answer is a problem document that says so, with these members more."""
    reply, body = answer
    assert reply.status == status, body[:300]
    assert reply.headers["Content-Type"] == "application/problem+json"
    problem = json.loads(body)
    assert problem["status"] == status
    assert says in problem["detail"], problem
    assert {name: problem.get(name) for name in members} == members


class TestLife:
    def test_from_creation_to_deletion(self, serve: Serve) -> None:
        service = serve()
        reply, body = service.ask(COLLECTION, "POST")
        path = reply.headers["Location"]
        found = re.fullmatch("/api1/sequences/([0-9a-f]{32})", path)
        assert found
        name = found[1]
        assert reply.status == 201
        assert body == document_at(name, 0)
        for method, rest, at in (
            ("GET", "", 0),
            ("POST", "/next", 1),
            ("POST", "/next", 2),
            ("POST", "/next?by=98", 100),
            ("GET", "", 100),
            ("POST", "/previous", 99),
            ("POST", "/previous?by=90", 9),
        ):
            reply, body = service.ask(path + rest, method)
            assert reply.status == 200
            assert reply.headers["Content-Type"] == "application/json"
            assert reply.headers["ETag"] == f'"{at}"'
            assert reply.headers["Cache-Control"] == "no-cache"
            assert body == document_at(name, at)
        reply, body = put(service, path, 5000)
        assert (reply.headers["ETag"], body) == ('"5000"', document_at(name, 5000))
        reply, body = service.ask(path, "DELETE")
        assert (reply.status, body) == (204, b"")
        for method, rest in (
            *(("GET", ""), ("HEAD", ""), ("DELETE", ""), ("POST", "/next"), ("POST", "/previous")),
        ):
            assert service.ask(path + rest, method)[0].status == 404
        refused(put(service, path, 1), 404, "There is no such sequence")

    def test_it_survives_the_service(self, serve: Serve) -> None:
        service = serve()
        paths = [created(service) for _ in range(4)]
        service.ask(f"{paths[1]}/next?by=7", "POST")
        put(service, paths[2], 9)
        service.ask(paths[3], "DELETE")
        service.process.kill()
        service.wait()
        service = serve()
        assert [position(service, path) for path in paths[:3]] == [0, 7, 9]
        assert service.ask(paths[3])[0].status == 404

    def test_ids_are_not_to_be_guessed_and_nothing_lists_them(self, serve: Serve) -> None:
        service = serve()
        names = {created(service).rpartition("/")[2] for _ in range(200)}
        assert len(names) == 200
        # 128 random bits each: half of all are set, give or take five standard deviations.
        ones = sum(int(name, 16).bit_count() for name in names)
        assert abs(ones - 12_800) < 5 * 80
        refused(service.ask(COLLECTION), 405)
        reply, _ = service.ask(COLLECTION, "OPTIONS")
        assert reply.headers["Allow"] == "POST"

    @pytest.mark.parametrize(
        "name",
        ["0" * 32, "0" * 31, "F" * 32, "Shared", "x", "%D9%A0" * 32, "shared%00", "a" * 9000],
    )
    def test_what_is_none(self, serve: Serve, name: str) -> None:
        service = serve()
        for method, rest in (("GET", ""), ("POST", "/next"), ("DELETE", "")):
            refused(service.ask(f"{COLLECTION}/{name}{rest}", method), 404, "POST /api1/sequences")


class TestShared:
    def test_is_the_one_of_api0(self, serve: Serve) -> None:
        service = serve()
        assert service.value("next") == 1
        assert service.ask(SHARED)[1] == document_at("shared", 1)
        assert service.ask(f"{SHARED}/next?by=9", "POST")[1] == document_at("shared", 10)
        assert service.value("current") == 55
        assert service.value("previous") == 34
        assert service.ask(f"{SHARED}/previous", "POST")[1] == document_at("shared", 8)
        assert put(service, SHARED, 12)[1] == document_at("shared", 12)
        assert service.value("next") == 233

    def test_is_not_deleted(self, serve: Serve) -> None:
        service = serve()
        service.value("next")
        answer = service.ask(SHARED, "DELETE")
        refused(answer, 405, "PUT at position 0")
        assert answer[0].headers["Allow"] == "GET, HEAD, PUT"
        assert position(service, SHARED) == 1


class TestPreconditions:
    def test_a_stale_change_is_not_made(self, serve: Serve) -> None:
        service = serve()
        path = created(service)
        put(service, path, 5)
        size = service.file.stat().st_size
        for stale in ('"4"', '"6"', '""', 'W/"5"', "", "nonsense", '"4", "6"', '"05"', '"*"'):
            for method, rest in (("POST", "/next"), ("POST", "/previous?by=2"), ("DELETE", "")):
                answer = service.ask(path + rest, method, {"If-Match": stale})
                refused(answer, 412, "it is at position 5", position="5")
                assert answer[0].headers["ETag"] == '"5"'
            answer = service.ask(path, "PUT", JSON | {"If-Match": stale}, b'{"position":"1"}')
            refused(answer, 412, position="5")
        assert service.file.stat().st_size == size
        assert position(service, path) == 5

    def test_a_current_one_is(self, serve: Serve) -> None:
        service = serve()
        path = created(service)
        for at, tag in enumerate(('"0"', "*", '"7", "2"', '"x","3","y"')):
            reply, _ = service.ask(f"{path}/next", "POST", {"If-Match": tag})
            assert reply.headers["ETag"] == f'"{at + 1}"'
        reply, _ = service.ask(path, "PUT", JSON | {"If-Match": '"4"'}, b'{"position":"9"}')
        assert reply.headers["ETag"] == '"9"'
        assert service.ask(path, "DELETE", {"If-Match": '"9"'})[0].status == 204

    def test_the_same_step_twice_is_made_once(self, serve: Serve) -> None:
        service = serve()
        path = created(service)
        answers = [
            service.ask(f"{path}/next?by=3", "POST", {"If-Match": '"0"'})[0].status
            for _ in range(3)
        ]
        assert answers == [200, 412, 412]
        assert position(service, path) == 3

    @pytest.mark.parametrize(
        ("headers", "says"),
        [
            ({"If-None-Match": "*"}, "If-None-Match"),
            ({"If-None-Match": " * "}, "If-None-Match"),
            ({"If-None-Match": '"5"'}, "If-None-Match"),
            ({"If-None-Match": 'W/"5"'}, "If-None-Match"),
            ({"If-None-Match": '"4", "5"'}, "If-None-Match"),
            ({"If-None-Match": ',"4" ,, W/"5",'}, "If-None-Match"),
            # Two lines, as bjoern joins them.
            ({"If-None-Match": '"4""5"'}, "If-None-Match"),
            # What cannot be parsed.
            ({"If-None-Match": "5"}, "If-None-Match"),
            ({"If-None-Match": '"4", nonsense'}, "If-None-Match"),
            ({"If-None-Match": '"4'}, "If-None-Match"),
            ({"If-None-Match": '*, "4"'}, "If-None-Match"),
            ({"If-Match": "*", "If-None-Match": "*"}, "If-None-Match"),
            ({"If-Match": '"5"', "If-None-Match": '"5"'}, "If-None-Match"),
            # RFC 9110, 13.2.2: If-Match comes first.
            ({"If-Match": '"4"', "If-None-Match": "*"}, "If-Match"),
            ({"If-Match": '"4"', "If-None-Match": '"4"'}, "If-Match"),
            ({"If-Match": '"4"', "If-None-Match": '"9"'}, "If-Match"),
        ],
        ids=str,
    )
    def test_change_where_if_none_match_excludes_it_is_not_made(
        self, serve: Serve, headers: dict[str, str], says: str
    ) -> None:
        service = serve()
        own = created(service)
        for path in (own, SHARED):
            put(service, path, 5)
            size = service.file.stat().st_size
            for method, rest in (
                *(("PUT", ""), ("POST", "/next"), ("POST", "/next?by=9")),
                *(("POST", "/previous"), ("DELETE", "")),
            ):
                if (path, method) == (SHARED, "DELETE"):
                    continue
                body = b'{"position":"1"}' if method == "PUT" else None
                answer = service.ask(path + rest, method, JSON | headers, body)
                refused(answer, 412, f"{says} ", position="5")
                assert answer[0].headers["ETag"] == '"5"'
            assert service.file.stat().st_size == size
            assert position(service, path) == 5

    @pytest.mark.parametrize(
        "headers",
        [
            {"If-None-Match": '"4"'},
            {"If-None-Match": 'W/"4", "6"'},
            {"If-None-Match": '"4""6"'},
            {"If-None-Match": '"*"'},
            {"If-None-Match": ""},
            {"If-Match": '"5"', "If-None-Match": '"4"'},
            {"If-Match": '"4", "5"', "If-None-Match": '"4"'},
            {"If-Match": "*", "If-None-Match": '"4"'},
        ],
        ids=str,
    )
    def test_change_where_if_none_match_does_not_exclude_it_is_made(
        self, serve: Serve, headers: dict[str, str]
    ) -> None:
        service = serve()
        path = created(service)
        for method, rest, leads_to in (
            *(("POST", "/next", 6), ("POST", "/previous?by=2", 3), ("PUT", "", 9)),
        ):
            put(service, path, 5)
            body = b'{"position":"9"}' if method == "PUT" else None
            reply, _ = service.ask(path + rest, method, JSON | headers, body)
            assert (reply.status, reply.headers["ETag"]) == (200, f'"{leads_to}"')
        put(service, path, 5)
        assert service.ask(path, "DELETE", headers)[0].status == 204

    def test_change_if_none_match_any_of_what_is_missing_is_404(self, serve: Serve) -> None:
        service = serve()
        missing = f"{COLLECTION}/{'0' * 32}"
        for method, rest in (("POST", "/next"), ("POST", "/previous"), ("DELETE", "")):
            refused(service.ask(missing + rest, method, {"If-None-Match": "*"}), 404)

    def test_shared_sequence_that_nobody_has_stepped_exists(self, serve: Serve) -> None:
        service = serve()
        headers = JSON | {"If-None-Match": "*"}
        refused(service.ask(SHARED, "PUT", headers, b'{"position":"7"}'), 412, position="0")
        headers = JSON | {"If-None-Match": '"7"'}
        assert service.ask(SHARED, "PUT", headers, b'{"position":"7"}')[0].status == 200
        assert service.ask(SHARED, "PUT", headers, b'{"position":"8"}')[0].status == 412

    def test_tag_of_more_digits_than_python_writes_matches_nothing(self, serve: Serve) -> None:
        service = serve()
        tag = f'"{"9" * 5000}"'
        refused(service.ask(f"{SHARED}/next", "POST", {"If-Match": tag}), 412, position="0")
        assert service.ask(f"{SHARED}/next", "POST", {"If-None-Match": tag})[0].status == 200

    def test_looking_again(self, serve: Serve) -> None:
        service = serve()
        path = created(service)
        put(service, path, 30)
        shown, body = service.ask(path)
        for method in ("GET", "HEAD"):
            for known in ('"30"', 'W/"30"', "*", '"x", "30"'):
                reply, nothing = service.ask(path, method, {"If-None-Match": known})
                assert (reply.status, nothing) == (304, b"")
                assert reply.headers["ETag"] == '"30"'
            for other in ('"29"', '"*"'):
                assert service.ask(path, method, {"If-None-Match": other})[0].status == 200
            assert service.ask(path, method, {"If-Match": '"*"'})[0].status == 412
        reply, nothing = service.ask(path, "HEAD")
        assert nothing == b""
        assert reply.headers["Content-Length"] == str(len(body))
        for one in (shown, reply):
            del one.headers["Date"]
        assert reply.headers.items() == shown.headers.items()


class TestLimits:
    def test_before_the_start(self, serve: Serve) -> None:
        service = serve()
        path = created(service)
        refused(service.ask(f"{path}/previous", "POST"), 409, "before F(0)", position="0")
        put(service, path, 5)
        refused(service.ask(f"{path}/previous?by=6", "POST"), 409, position="5")
        assert service.ask(f"{path}/previous?by=5", "POST")[0].headers["ETag"] == '"0"'

    def test_steps_and_seeks(self, serve: Serve) -> None:
        service = serve("--max-term", "1000000")
        path = created(service)
        name = path.rpartition("/")[2]
        reply, body = service.ask(f"{path}/next?by={FARTHEST}", "POST")
        assert (reply.status, body) == (200, document_at(name, FARTHEST))
        refused(service.ask(f"{path}/next?by=2", "POST"), 422, "1000000 at most; steps of one")
        reply, body = service.ask(f"{path}/next", "POST")
        assert (reply.status, body) == (200, document_at(name, FARTHEST + 1))
        assert put(service, path, 0)[0].status == 200
        refused(service.ask(f"{path}/next?by={FARTHEST + 1}", "POST"), 422, "1000000 at most")
        reply, body = put(service, path, FARTHEST)
        assert (reply.status, body) == (200, document_at(name, FARTHEST))
        refused(put(service, path, FARTHEST + 1), 422, "1000000 at most")
        refused(put(service, path, "9" * 10_001), 422, "at most 10000 digits")
        assert position(service, path) == FARTHEST

    @pytest.mark.parametrize("by", ["0", "-1", "x", "", "1e3", "01", "%D9%A1"])
    def test_what_is_no_number_of_steps(self, serve: Serve, by: str) -> None:
        service = serve()
        for way in ("next", "previous"):
            refused(service.ask(f"{SHARED}/{way}?by={by}", "POST"), 422)
        assert position(service, SHARED) == 0

    @pytest.mark.parametrize("query", ["?by=1&by=2", "?by=1&x=2", "?y"])
    def test_parameters(self, serve: Serve, query: str) -> None:
        service = serve()
        for method, rest in (("POST", "/next"), ("GET", ""), ("DELETE", "")):
            refused(service.ask(SHARED + rest + query, method), 422)
        assert position(service, SHARED) == 0

    def test_as_many_as_there_may_be(self, serve: Serve) -> None:
        service = serve("--max-sequences", "2")
        path = created(service)
        created(service)
        refused(service.ask(COLLECTION, "POST"), 507, "limit of 2 sequences")
        assert service.ask(f"{path}/next", "POST")[0].status == 200
        assert service.value("next") == 1
        service.ask(path, "DELETE")
        created(service)
        refused(service.ask(COLLECTION, "POST"), 507)


class TestBodies:
    @pytest.mark.parametrize(
        ("body", "status", "says"),
        [
            (b"", 400, ""),
            (b"{", 400, ""),
            (b"\xff", 400, ""),
            (b"[" * 100_000, 400, "nested too deeply"),
            (b"null", 422, "as a string"),
            (b"5", 422, "as a string"),
            (b'"5"', 422, "as a string"),
            (b"[]", 422, "as a string"),
            (b"{}", 422, "as a string"),
            (b'{"position":5}', 422, "as a string"),
            (b'{"position":null}', 422, "as a string"),
            (b'{"position":"-1"}', 422, "begins at position 0"),
            (b'{"position":"007"}', 422, "is not an index"),
            (b'{"position":"1e3"}', 422, "is not an index"),
            (b'{"position":"\\u0663"}', 422, "is not an index"),
            (b'{"position":"\\ud800"}', 422, "is not an index"),
        ],
        ids=range(16),
    )
    def test_what_is_no_position(self, serve: Serve, body: bytes, status: int, says: str) -> None:
        service = serve()
        refused(service.ask(SHARED, "PUT", JSON, body), status, says)
        assert position(service, SHARED) == 0

    def test_length(self, serve: Serve) -> None:
        service = serve()
        longest = b'{"position":"3"}'.ljust(1 << 20)
        assert service.ask(SHARED, "PUT", JSON, longest)[0].status == 200
        refused(service.ask(SHARED, "PUT", JSON, longest + b" "), 413, "at most 1048576 bytes")
        assert position(service, SHARED) == 3

    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "x"])
    def test_of_another_type(self, serve: Serve, kind: str) -> None:
        service = serve()
        answer = service.ask(SHARED, "PUT", {"Content-Type": kind}, b'{"position":"3"}')
        refused(answer, 415, "application/json")

    @pytest.mark.parametrize(
        "kind", ["Application/JSON", "APPLICATION/JSON; Charset=UTF-8", "application/json"]
    )
    def test_content_type_in_any_case_is_json(self, serve: Serve, kind: str) -> None:
        service = serve()
        reply, _ = service.ask(SHARED, "PUT", {"Content-Type": kind}, b'{"position":"3"}')
        assert (reply.status, reply.headers["ETag"]) == (200, '"3"')

    @pytest.mark.parametrize("part", ["bytes 0-15/16", "bytes */16", ""])
    def test_put_of_a_part_is_400(self, serve: Serve, part: str) -> None:
        service = serve()
        headers = JSON | {"Content-Range": part}
        refused(service.ask(SHARED, "PUT", headers, b'{"position":"3"}'), 400, "Content-Range")
        assert position(service, SHARED) == 0

    def test_in_chunks(self, serve: Serve) -> None:
        service = serve()
        with service.connect() as connection:
            connection.request(
                "PUT", SHARED, iter([b'{"position":"3"}']), JSON, encode_chunked=True
            )
            reply = connection.getresponse()
            refused((reply, reply.read()), 411, "Content-Length")

    def test_a_document_as_it_was_got(self, serve: Serve) -> None:
        """Whoever keeps what was shown may send it back, at a million digits too."""
        service = serve()
        path = created(service)
        _, far = service.ask(f"{path}/next?by={FARTHEST}", "POST")
        put(service, path, 3)
        reply, body = service.ask(path, "PUT", JSON, far)
        assert (reply.status, body) == (200, far)


@pytest.mark.parametrize("accept", ["*/*", "text/html", "image/png", "nonsense"])
def test_a_problem_is_a_problem_whatever_accept_says(serve: Serve, accept: str) -> None:
    service = serve()
    for status, method, path in (
        (404, "GET", "/api1"),
        (404, "GET", f"{COLLECTION}/x"),
        (405, "GET", COLLECTION),
        (409, "POST", f"{SHARED}/previous"),
        (412, "POST", f"{SHARED}/next"),
        (415, "PUT", SHARED),
        (422, "POST", f"{SHARED}/next?by=x"),
    ):
        headers = {"Accept": accept, "Content-Type": "text/plain"}
        if status == 412:
            headers["If-Match"] = '"9"'
        body = b"x" if status == 415 else None
        refused(service.ask(path, method, headers, body), status)


class TestDurability:
    """No reply gives away a position before it is committed; the log is a real one."""

    @pytest.mark.parametrize(
        ("method", "rest", "headers", "status"),
        [
            ("GET", "", {}, "200"),
            ("HEAD", "", {}, "200"),
            ("GET", "", {"If-None-Match": '"1"'}, "304"),
            ("GET", "", {"If-Match": '"0"'}, "412"),
            ("POST", "/next", {"If-Match": '"0"'}, "412"),
            ("POST", "/previous?by=2", {}, "409"),
            ("POST", "/next", {}, "200"),
            ("PUT", "", {}, "200"),
            ("DELETE", "", {}, "204"),
        ],
    )
    def test_of_a_step_under_way(
        self, path: Path, method: str, rest: str, headers: dict[str, str], status: str
    ) -> None:
        with Log(path) as log:
            sequences = Sequences(log)
            app = create_app(log, sequences, jobs(path), per_client=False)
            sequence = sequences.create()
            log.commit()
            own = f"{COLLECTION}/{sequence.hex()}"
            # Another client's step, whose reply has not left yet.
            sequences.forward(sequence)
            under_way = log.end
            assert log.committed < under_way
            # The position is in the headers, which leave before the server asks for the body.
            assert self._begin(app, log, method, own + rest, headers) == (status, log.end)
            assert log.end >= under_way

    @staticmethod
    def _begin(
        app: Any, log: Log, method: str, target: str, headers: dict[str, str]
    ) -> tuple[str, int]:
        """Return the status of a reply, and what is committed when its headers are there."""
        content = b'{"position":"7"}' if method == "PUT" else b""
        path, _, query = target.partition("?")
        environ = falcon.testing.create_environ(
            path,
            method=method,
            query_string=query,
            headers=headers | JSON,
            body=content.decode(),
        )
        assert isinstance(environ["wsgi.input"], BytesIO)
        begun: list[tuple[str, int]] = []
        app(environ, lambda status, _headers: begun.append((status[:3], log.committed)))
        return begun[0]

    def test_a_new_sequence(self, path: Path) -> None:
        with Log(path) as log:
            app = create_app(log, Sequences(log), jobs(path), per_client=False)
            before = log.committed
            assert self._begin(app, log, "POST", COLLECTION, {}) == ("201", log.end)
            assert log.end > before


class Cut(Exception):
    """The reply was cut off, or never asked for."""


class CarefulClient(threading.Thread):
    """Moves its own sequences at random over a bad connection, and believes where they are."""

    STEPS = 150

    def __init__(self, number: int, paths: list[str], tried: Counter[str]) -> None:
        super().__init__()
        self._random = random.Random(number)
        self.believed = dict.fromkeys(paths, 0)
        self._tried = tried
        self.address = ("", 0)
        self.back = threading.Event()
        self.failed: BaseException | None = None

    def run(self) -> None:
        try:
            for _ in range(self.STEPS):
                self._move(self._random.choice(list(self.believed)))
        except BaseException as failure:
            self.failed = failure
            raise

    def _move(self, path: str) -> None:
        here = self.believed[path]
        by = self._random.choice([1, 1, 1, 2, 50])
        way = self._random.choice(["next", "next", "previous"])
        goal = here + by if way == "next" else here - by
        request = (
            f'POST {path}/{way}?by={by} HTTP/1.1\r\nHost: x\r\nIf-Match: "{here}"\r\n'
            "Connection: close\r\n\r\n"
        ).encode()
        for attempt in range(1000):
            try:
                status, body = self._ask(request)
            except (Cut, OSError):
                self._tried["replies cut"] += 1
                self.back.wait(10)
                continue
            told = json.loads(body)
            if status == 409:
                assert goal < 0
                return
            if status == 412:
                # It was this very change whose reply was lost.
                assert attempt > 0
                self._tried["changes found made"] += 1
            else:
                assert status == 200, body
                assert told["value"] == term(goal)
            assert told["position"] == str(goal)
            self.believed[path] = goal
            return
        raise AssertionError("the service is gone")

    def _ask(self, request: bytes) -> tuple[int, bytes]:
        """Ask, and perhaps hang up at some moment of it."""
        with closing(socket.create_connection(self.address, timeout=10)) as connection:
            moment = self._random.random()
            if moment < 0.1:
                connection.sendall(request[: self._random.randrange(len(request))])
                raise Cut
            connection.sendall(request)
            if moment < 0.3:
                if moment < 0.2:
                    # A reset rather than an orderly end.
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                raise Cut
            received = b""
            while piece := connection.recv(self._random.choice([1, 10, 65536])):
                received += piece
                if moment < 0.4 and self._random.random() < 0.1:
                    raise Cut
        head, end, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if not end or not length or len(body) < int(length[1]):
            raise Cut
        return int(head.split()[1]), body


@pytest.mark.parametrize("kills", [0, 6])
def test_eight_clients_whose_replies_are_cut(serve: Serve, tried: Counter[str], kills: int) -> None:
    """With ``If-Match`` every sequence ends where its client believes it is."""
    service = serve()
    clients = [
        CarefulClient(number, [created(service) for _ in range(8)], tried) for number in range(8)
    ]
    for client in clients:
        client.address = (service.host, service.port)
        client.back.set()
        client.start()
    for _ in range(kills):
        clients[0].join(0.15)
        for client in clients:
            client.back.clear()
        service.process.kill()
        assert service.wait() == -signal.SIGKILL
        tried["kills among cut replies"] += 1
        service = serve()
        for client in clients:
            client.address = (service.host, service.port)
            client.back.set()
    for client in clients:
        client.join()
        assert client.failed is None
    believed = {path: at for client in clients for path, at in client.believed.items()}
    assert len(believed) == 64
    assert {path: position(service, path) for path in believed} == believed
    assert service.stop(signal.SIGTERM) == 0
    contents = reader.read(service.file)
    for path, at in believed.items():
        assert contents.position(parse_id(path.rpartition("/")[2])) == at
    assert sum(believed.values()) > 1000
    assert tried["changes found made"] > 50


def test_whatever_is_asked(serve: Serve) -> None:
    """Hypothesis makes up changes; a model of three lines says what they come to."""
    service = serve("--durability", "os")
    change = st.one_of(
        st.tuples(st.just("next"), st.integers(1, 300)),
        st.tuples(st.just("previous"), st.integers(1, 300)),
        st.tuples(st.just("seek"), st.integers(0, 20_000)),
    )
    with service.connect() as connection:

        def ask(method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, json.loads(reply.read())

        @settings(max_examples=100, deadline=None)
        @given(changes=st.lists(st.tuples(change, st.booleans()), max_size=15))
        def follow(changes: list[tuple[tuple[str, int], bool]]) -> None:
            _, document = ask("POST", COLLECTION, {}, b"")
            path = f"{COLLECTION}/{document['id']}"
            at = 0
            for (kind, number), stale in changes:
                headers = JSON | {"If-Match": f'"{at + stale}"'}
                if kind == "seek":
                    goal = number
                    body = json.dumps({"position": str(number)}).encode()
                    status, document = ask("PUT", path, headers, body)
                else:
                    goal = at + number if kind == "next" else at - number
                    status, document = ask("POST", f"{path}/{kind}?by={number}", headers, b"")
                expected = 412 if stale else 409 if goal < 0 else 200
                assert status == expected
                at = goal if status == 200 else at
                assert document["position"] == str(at)
                if status == 200:
                    assert document["value"] == term(at)

        follow()


def test_a_service_that_is_gone_has_done_what_it_said(serve: Serve) -> None:
    """Killed while many sequences are created: all that were told of are there."""
    service = serve()
    paths: list[str] = []

    def create() -> None:
        try:
            with service.connect() as connection:
                while True:
                    connection.request("POST", COLLECTION)
                    reply = connection.getresponse()
                    reply.read()
                    paths.append(reply.headers["Location"])
        except (OSError, HTTPException):
            pass

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    threads[0].join(0.5)
    service.process.kill()
    for thread in threads:
        thread.join()
    service.wait()
    service = serve()
    assert len(paths) > 100
    for path in paths:
        assert position(service, path) == 0
