"""Health checks: what a service reports about itself."""

import signal
from pathlib import Path
from threading import Event

import falcon.testing

from bigfib.api.app import create_app
from bigfib.sequences import Sequences
from bigfib.state.log import Log
from tests.postgres import Cluster
from tests.service import Serve, Service, jobs

WELL = b"[+] serving ok\n[+] store ok\nready\n"


def test_verbose_has_a_line_for_each_check(service: Service) -> None:
    for path, body in (
        ("/readyz", b"ready"),
        ("/readyz?verbose", WELL),
        ("/readyz?verbose=1", WELL),
        ("/livez", b"live"),
        ("/livez?verbose", b"[+] answering ok\nlive\n"),
    ):
        reply, found = service.ask(path)
        assert (reply.status, found) == (200, body)
        assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"


def test_readiness_while_the_store_is_down_is_503(serve: Serve, cluster: Cluster) -> None:
    service = serve("--store", cluster.url())
    assert service.ask("/readyz?verbose")[1] == WELL
    cluster.stop()
    reply, body = service.ask("/readyz?verbose")
    assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
    assert body == b"[+] serving ok\n[-] store failed: it is unavailable\nnot ready\n"
    assert service.ask("/readyz")[0].headers["Content-Type"] == "application/problem+json"
    assert service.ask("/livez?verbose")[0].status == 200
    # The metrics are still there, and report it.
    reply, body = service.ask("/metrics")
    assert reply.status == 200
    assert b"\nbigfib_store_up 0.0\n" in body
    assert b"\nbigfib_shared_position" not in body


def test_not_ready_while_draining(path: Path) -> None:
    draining = Event()
    with Log(path) as log:
        client = falcon.testing.TestClient(
            create_app(log, Sequences(log), jobs(path), per_client=False, draining=draining)
        )
        assert client.simulate_get("/readyz").status_code == 200
        draining.set()
        reply = client.simulate_get("/readyz")
        assert reply.status_code == 503
        assert "stopping" in reply.json["detail"]
        assert reply.headers["Retry-After"] == "1"
        reply = client.simulate_get("/readyz?verbose")
        assert reply.status_code == 503
        assert (
            reply.text == "[-] serving failed: the service is stopping\n[+] store ok\nnot ready\n"
        )
        # The service need not be restarted, and still answers.
        assert client.simulate_get("/livez").status_code == 200
        assert client.simulate_get("/api0/next").status_code == 200


def test_readiness_of_a_stopping_service_is_503(serve: Serve) -> None:
    """Clients connected before the signal still get a reply."""
    service = serve()
    with service.connect() as connection:
        connection.request("GET", "/livez")
        assert connection.getresponse().read() == b"live"
        # So that the service finds both at the same moment.
        service.process.send_signal(signal.SIGSTOP)
        connection.request("GET", "/readyz")
        service.process.send_signal(signal.SIGTERM)
        service.process.send_signal(signal.SIGCONT)
        reply = connection.getresponse()
        # On a busy machine, the service may read the request before it handles the signal.
        for _ in range(100):
            if reply.status == 503:
                break
            reply.read()
            connection.request("GET", "/readyz")
            reply = connection.getresponse()
        assert reply.status == 503
        assert b"stopping" in reply.read()
    assert service.wait() == 0
