"""By which names the service may be addressed."""

import json

import pytest

from bigfib.api.hosts import Hosts
from tests.service import Serve, Service, exchange

STEP = "/api1/sequences/shared/next"

LOCAL = [
    *("localhost", "LOCALHOST:9000", "localhost.", "a.b.localhost:80"),
    *("127.0.0.1", "127.0.0.1:8080", "10.0.0.9:80", "[::1]:8080", "[::1]", ""),
]

OTHERS = [
    *("rebound.example", "rebound.example:8080", "x", "localhost.example", "evillocalhost"),
    *("127.0.0.1.example", "[rebound.example]", "rebound.example:localhost", "localhost, x", "*"),
]


def statuses(service: Service, *hosts: str) -> set[int]:
    """Return the statuses of a request by each way through the application, for each host."""
    asked = [("/api0/next", "GET"), (STEP, "POST"), ("/", "GET"), ("/nothing", "GET")]
    return {service.ask(*one, {"Host": host})[0].status for one in asked for host in hosts}


def test_names_of_this_machine_and_addresses_are_answered(service: Service) -> None:
    assert statuses(service, *LOCAL) == {200, 404}
    assert b" 200 " in exchange(service, b"GET /api0/current HTTP/1.0\r\n\r\n")


def test_other_names_are_refused_and_step_nothing(service: Service) -> None:
    # Twice: nothing that is refused is remembered as allowed.
    for _ in range(2):
        assert statuses(service, *OTHERS) == {421}
    assert service.value("current") == 0
    reply, body = service.ask("/api0/next", headers={"Host": "rebound.example"})
    problem = json.loads(body)
    assert problem["type"] == "urn:bigfib:problem:misdirected"
    assert "'rebound.example'" in problem["detail"]
    assert "--allowed-host" in problem["detail"]
    assert reply.headers["Content-Type"] == "application/problem+json"


def test_allowed_names_are_answered_besides_those_of_this_machine(serve: Serve) -> None:
    service = serve("--allowed-host", "Fib.example,b.example")
    assert statuses(service, "fib.example:80", "FIB.example.", "b.example", *LOCAL) == {200, 404}
    assert statuses(service, "a.fib.example", "c.example") == {421}


@pytest.mark.parametrize(
    "arguments", [("--allowed-host", "*"), ("--host", "0.0.0.0")], ids=["any", "not on loopback"]
)
def test_any_name_is_answered_where_none_is_known(serve: Serve, arguments: tuple[str, str]) -> None:
    assert statuses(serve(*arguments), *OTHERS) == {200, 404}


def test_names_are_checked_beyond_loopback_where_they_are_given(serve: Serve) -> None:
    service = serve("--host", "0.0.0.0", "--allowed-host", "fib.example")
    assert statuses(service, "fib.example") == {200, 404}
    assert statuses(service, "rebound.example") == {421}


def test_name_that_it_listens_on_is_its_own(serve: Serve) -> None:
    # Only a name of loopback is sure to be known here.
    service = serve("--host", "LocalHost")
    assert statuses(service, "LOCALHOST:80") == {200, 404}
    assert Hosts("MyBox")["mybox:8080"]
    assert not Hosts("MyBox")["x"]


def test_few_values_are_kept_whatever_clients_send() -> None:
    hosts = Hosts()
    assert all(hosts[f"{n}.example"] for n in range(1000))
    assert hosts["x" * 10_000]
    assert len(hosts) <= 100
    assert max(map(len, hosts)) <= 300
