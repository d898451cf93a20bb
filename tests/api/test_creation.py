"""``PUT /api1/sequences/{id}`` with ``If-None-Match: *``: creation that is safe to repeat."""

import json
import secrets
import signal

import pytest

from tests.api.sequences import tagged
from tests.service import Serve, Service

COLLECTION = "/api1/sequences"
ANY = {"If-None-Match": "*"}
JSON = {"Content-Type": "application/json"}


def put(
    service: Service, path: str, headers: dict[str, str], body: bytes | None = None
) -> tuple[int, dict[str, str]]:
    reply, content = service.ask(path, "PUT", headers, body)
    return reply.status, json.loads(content)


def any_path() -> str:
    return f"{COLLECTION}/{secrets.token_hex(16)}"


def test_creation_by_put_is_made_once(serve: Serve) -> None:
    service, path = serve(), any_path()
    reply, body = service.ask(path, "PUT", ANY)
    assert (reply.status, reply.headers["Location"], tagged(reply)) == (201, path, 0)
    created = {"id": path.rpartition("/")[2], "position": "0", "digits": "1", "value": "0"}
    assert json.loads(body) == created
    service.ask(f"{path}/next?by=10", "POST")
    for _ in range(2):
        reply, body = service.ask(path, "PUT", ANY)
        assert (reply.status, tagged(reply)) == (412, 10)
        assert json.loads(body)["position"] == "10"
    assert json.loads(service.ask(path)[1])["value"] == "55"


def test_creation_by_put_at_a_position_begins_there(serve: Serve) -> None:
    service, path = serve(), any_path()
    status, created = put(service, path, ANY | JSON, b'{"position":"100"}')
    assert (status, created["value"]) == (201, "354224848179261915075")
    assert put(service, path, ANY | JSON, b'{"position":"7"}')[0] == 412


def test_creation_by_put_is_kept_by_kill(serve: Serve) -> None:
    service, path = serve(), any_path()
    assert put(service, path, ANY | JSON, b'{"position":"3"}')[0] == 201
    service.stop(signal.SIGKILL)
    again = serve()
    assert put(again, path, ANY)[1]["position"] == "3"


def test_put_without_the_condition_creates_nothing_and_says_what_does(serve: Serve) -> None:
    service, path = serve(), any_path()
    for headers in (JSON, JSON | {"If-Match": "*"}, JSON | ANY | {"If-Match": '"0"'}):
        status, problem = put(service, path, headers, b'{"position":"0"}')
        assert (status, "PUT with If-None-Match: *" in problem["detail"]) == (404, True)
    assert service.ask(path)[0].status == 404


@pytest.mark.parametrize("name", ["0" * 31, "0" * 33, "F" * 32, "x", "shared2"])
def test_id_that_is_not_32_hexadecimal_digits_is_refused(serve: Serve, name: str) -> None:
    assert put(serve(), f"{COLLECTION}/{name}", ANY)[0] == 404


def test_shared_sequence_is_there_before_its_first_step(serve: Serve) -> None:
    status, problem = put(serve(), f"{COLLECTION}/shared", ANY)
    assert (status, problem["position"]) == (412, "0")


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"position":"-1"}', b'{"position":"100000001"}'])
def test_creation_with_a_body_that_is_no_position_is_refused(serve: Serve, body: bytes) -> None:
    service, path = serve(), any_path()
    assert put(service, path, ANY | JSON, body)[0] in (400, 422)
    assert service.ask(path)[0].status == 404


def test_creation_at_a_large_position_waits_for_its_terms(serve: Serve) -> None:
    service, path = serve(), any_path()
    at = b'{"position":"1500000"}'
    status, _ = put(service, path, ANY | JSON, at)
    assert status == 503
    assert service.ask(path)[0].status == 404
    while status == 503:
        status, created = put(service, path, ANY | JSON, at)
    assert (status, created["position"]) == (201, "1500000")


def test_creation_is_repeated_where_there_is_room_for_no_other(serve: Serve) -> None:
    service, path = serve("--max-sequences", "1"), any_path()
    assert put(service, path, ANY)[0] == 201
    assert put(service, path, ANY)[0] == 412
    assert put(service, any_path(), ANY)[0] == 507


def test_creation_in_a_shared_store_is_made_once_by_all_servers(
    serve: Serve, database: str
) -> None:
    first, second = serve("--store", database), serve("--store", database)
    path = any_path()
    assert put(first, path, ANY)[0] == 201
    assert second.ask(f"{path}/next", "POST")[0].status == 200
    for service in (first, second):
        status, problem = put(service, path, ANY)
        assert (status, problem["position"]) == (412, "1")
