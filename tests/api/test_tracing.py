"""The ids by which a request is followed: returned to the client, and in the access log."""

import json
import signal

import pytest

from tests.service import Serve, Service

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

ROUTES = [
    *("/api0/current", "/api0/nothing", "/api1/terms/10", "/api1/terms/x", "/nothing"),
    *("/api1/terms?count=3", "/livez"),
]


def echoed(service: Service, path: str, **sent: str) -> tuple[str | None, str | None]:
    headers = {name.replace("_", "-"): value for name, value in sent.items()}
    reply, _ = service.ask(path, headers=headers)
    return reply.headers["X-Request-Id"], reply.headers["traceparent"]


@pytest.mark.parametrize("path", ROUTES)
def test_ids_are_returned_with_every_reply_and_nothing_without_them(
    service: Service, path: str
) -> None:
    assert echoed(service, path, X_Request_Id="a.B-1:2/3+4=@_", traceparent=TRACE) == (
        "a.B-1:2/3+4=@_",
        TRACE,
    )
    assert echoed(service, path, X_Request_Id="x" * 128) == ("x" * 128, None)
    assert echoed(service, path, traceparent=TRACE) == (None, TRACE)
    assert echoed(service, path) == (None, None)


@pytest.mark.parametrize(
    "value", ["", " ", "x" * 129, "a b", 'a"b', "a\tb", "a,b", "é", "a\x7f", "<script>"]
)
def test_request_id_that_a_log_could_not_hold_is_ignored(service: Service, value: str) -> None:
    assert echoed(service, "/api0/current", X_Request_Id=value) == (None, None)


@pytest.mark.parametrize(
    "value",
    [
        TRACE.upper(),
        f"{TRACE}-00",
        f"ff{TRACE[2:]}",
        TRACE[:-1],
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
    ],
)
def test_traceparent_that_is_none_of_the_standard_is_ignored(service: Service, value: str) -> None:
    assert echoed(service, "/api1/terms/10", traceparent=value) == (None, None)


@pytest.mark.parametrize("written_as", ["text", "json"])
def test_access_log_has_the_ids_and_draws_what_is_missing(serve: Serve, written_as: str) -> None:
    service = serve("--access-log", "--log-format", written_as)
    for path in ("/api0/next", "/api1/terms/10"):
        assert echoed(service, path, X_Request_Id="mine", traceparent=TRACE) == ("mine", TRACE)
    drawn = [echoed(service, path, X_Request_Id="a b")[0] for path in ("/api0/next", "/nothing")]
    assert all(drawn)
    assert len({*drawn}) == 2
    assert service.stop(signal.SIGTERM) == 0
    lines = [line for line in "".join(service.said).splitlines() if "GET" in line]
    if written_as == "text":
        found = [line.split()[-2:] for line in lines]
    else:
        entries = [json.loads(line) for line in lines]
        found = [[entry["request_id"], entry["traceparent"]] for entry in entries]
    assert found == [["mine", TRACE], ["mine", TRACE], [drawn[0], "-"], [drawn[1], "-"]]
