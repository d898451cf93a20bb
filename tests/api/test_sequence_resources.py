"""``/api1/sequences``, as clients use it, over real sockets."""

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.api.answers import refused
from tests.api.sequences import (
    COLLECTION,
    FARTHEST,
    JSON,
    SHARED,
    created,
    document_at,
    position,
    put,
    tagged,
    term,
)
from tests.service import Serve, Service


class TestLife:
    def test_sequence_is_created_moved_and_deleted(self, service: Service) -> None:
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
            assert tagged(reply) == at
            assert reply.headers["Cache-Control"] == "no-cache"
            assert body == document_at(name, at)
        reply, body = put(service, path, 5000)
        assert (tagged(reply), body) == (5000, document_at(name, 5000))
        reply, body = service.ask(path, "DELETE")
        assert (reply.status, body) == (204, b"")
        for method, rest in (
            *(("GET", ""), ("HEAD", ""), ("DELETE", ""), ("POST", "/next"), ("POST", "/previous")),
        ):
            assert service.ask(path + rest, method)[0].status == 404
        refused(put(service, path, 1), 404, "There is no such sequence")

    def test_sequences_survive_a_kill_of_the_service(self, serve: Serve) -> None:
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

    def test_ids_are_not_to_be_guessed_and_nothing_lists_them(self, service: Service) -> None:
        names = {created(service).rpartition("/")[2] for _ in range(200)}
        assert len(names) == 200
        # 128 random bits each: half of them are set, give or take five standard deviations.
        ones = sum(int(name, 16).bit_count() for name in names)
        assert abs(ones - 12_800) < 5 * 80
        refused(service.ask(COLLECTION), 405)
        reply, _ = service.ask(COLLECTION, "OPTIONS")
        assert reply.headers["Allow"] == "POST"

    @pytest.mark.parametrize(
        "name",
        ["0" * 32, "0" * 31, "F" * 32, "Shared", "x", "%D9%A0" * 32, "shared%00", "a" * 9000],
    )
    def test_unknown_sequence_is_404(self, service: Service, name: str) -> None:
        for method, rest in (("GET", ""), ("POST", "/next"), ("DELETE", "")):
            refused(service.ask(f"{COLLECTION}/{name}{rest}", method), 404, "POST /api1/sequences")


class TestShared:
    def test_shared_sequence_is_the_one_of_api0(self, service: Service) -> None:
        assert service.value("next") == 1
        assert service.ask(SHARED)[1] == document_at("shared", 1)
        assert service.ask(f"{SHARED}/next?by=9", "POST")[1] == document_at("shared", 10)
        assert service.value("current") == 55
        assert service.value("previous") == 34
        assert service.ask(f"{SHARED}/previous", "POST")[1] == document_at("shared", 8)
        assert put(service, SHARED, 12)[1] == document_at("shared", 12)
        assert service.value("next") == 233

    def test_shared_sequence_cannot_be_deleted(self, service: Service) -> None:
        service.value("next")
        answer = service.ask(SHARED, "DELETE")
        refused(answer, 405, "PUT at position 0")
        assert answer[0].headers["Allow"] == "GET, HEAD, PUT"
        assert position(service, SHARED) == 1


class TestLimits:
    def test_step_before_the_start_is_409(self, service: Service) -> None:
        path = created(service)
        refused(service.ask(f"{path}/previous", "POST"), 409, "before F(0)", position="0")
        put(service, path, 5)
        refused(service.ask(f"{path}/previous?by=6", "POST"), 409, position="5")
        assert tagged(service.ask(f"{path}/previous?by=5", "POST")[0]) == 0

    def test_step_or_seek_beyond_the_limit_is_422(self, serve: Serve) -> None:
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
    def test_text_that_is_no_number_of_steps_is_422(self, service: Service, by: str) -> None:
        for way in ("next", "previous"):
            refused(service.ask(f"{SHARED}/{way}?by={by}", "POST"), 422)
        assert position(service, SHARED) == 0

    @pytest.mark.parametrize("query", ["?by=1&by=2", "?by=1&x=2", "?y"])
    def test_unknown_parameter_of_a_sequence_is_422(self, service: Service, query: str) -> None:
        for method, rest in (("POST", "/next"), ("GET", ""), ("DELETE", "")):
            refused(service.ask(SHARED + rest + query, method), 422)
        assert position(service, SHARED) == 0

    def test_sequence_beyond_the_limit_is_507_until_one_is_deleted(self, serve: Serve) -> None:
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
    def test_body_that_is_no_position_is_refused(
        self, service: Service, body: bytes, status: int, says: str
    ) -> None:
        refused(service.ask(SHARED, "PUT", JSON, body), status, says)
        assert position(service, SHARED) == 0

    def test_body_of_more_than_a_megabyte_is_413(self, service: Service) -> None:
        longest = b'{"position":"3"}'.ljust(1 << 20)
        assert service.ask(SHARED, "PUT", JSON, longest)[0].status == 200
        refused(service.ask(SHARED, "PUT", JSON, longest + b" "), 413, "at most 1048576 bytes")
        assert position(service, SHARED) == 3

    @pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "x"])
    def test_body_of_another_type_is_415(self, service: Service, kind: str) -> None:
        answer = service.ask(SHARED, "PUT", {"Content-Type": kind}, b'{"position":"3"}')
        refused(answer, 415, "application/json")

    @pytest.mark.parametrize(
        "kind", ["Application/JSON", "APPLICATION/JSON; Charset=UTF-8", "application/json"]
    )
    def test_content_type_in_any_case_is_json(self, service: Service, kind: str) -> None:
        reply, _ = service.ask(SHARED, "PUT", {"Content-Type": kind}, b'{"position":"3"}')
        assert (reply.status, tagged(reply)) == (200, 3)

    @pytest.mark.parametrize("part", ["bytes 0-15/16", "bytes */16", ""])
    def test_put_of_a_part_is_400(self, service: Service, part: str) -> None:
        headers = JSON | {"Content-Range": part}
        refused(service.ask(SHARED, "PUT", headers, b'{"position":"3"}'), 400, "Content-Range")
        assert position(service, SHARED) == 0

    def test_body_in_chunks_is_411(self, service: Service) -> None:
        with service.connect() as connection:
            connection.request(
                "PUT", SHARED, iter([b'{"position":"3"}']), JSON, encode_chunked=True
            )
            reply = connection.getresponse()
            refused((reply, reply.read()), 411, "Content-Length")

    def test_put_of_a_document_as_it_was_shown_is_accepted(self, service: Service) -> None:
        """A client may send back what it was shown, even a million digits."""
        path = created(service)
        _, far = service.ask(f"{path}/next?by={FARTHEST}", "POST")
        put(service, path, 3)
        reply, body = service.ask(path, "PUT", JSON, far)
        assert (reply.status, body) == (200, far)


@pytest.mark.parametrize("accept", ["*/*", "text/html", "image/png", "nonsense"])
def test_a_problem_is_a_problem_whatever_accept_says(service: Service, accept: str) -> None:
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


def test_changes_of_any_kind_follow_the_model(serve: Serve) -> None:
    """Hypothesis chooses changes; a model of three lines predicts the results."""
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
