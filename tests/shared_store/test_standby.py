"""A synchronous standby that does not answer, and one that replaces a primary which comes back."""

import json
import signal
from collections.abc import Iterator

import pytest

from tests.postgres import Cluster, free_port, synchronous_standby
from tests.service import Serve, Service, until

PUT = {"Content-Type": "application/json"}


@pytest.fixture
def standby(cluster: Cluster) -> Iterator[Cluster]:
    """A synchronous standby of the cluster, running."""
    standby = synchronous_standby(cluster, free_port())
    yield standby
    standby.remove()


def at(service: Service, path: str) -> str | None:
    """Return the position that the service shows, or None if it answers 503."""
    reply, body = service.ask(path)
    assert reply.status in (200, 503), body
    return json.loads(body)["position"] if reply.status == 200 else None


def first_shown(service: Service, path: str) -> str:
    """Return the first position that the service shows."""
    shown: list[str] = []

    def look() -> bool:
        shown.extend(filter(None, [at(service, path)]))
        return bool(shown)

    until(look)
    return shown[0]


def step_from_5(service: Service, path: str) -> int:
    return service.ask(f"{path}/next", "POST", {"If-Match": '"5"'})[0].status


class TestUnansweredCommit:
    def test_step_that_no_standby_has_is_shown_by_no_server_and_lost_by_a_failover(
        self, serve: Serve, cluster: Cluster, standby: Cluster
    ) -> None:
        hosts = f"127.0.0.1:{cluster.port},127.0.0.1:{standby.port}"
        a, b = (serve("--store", f"postgresql://postgres@{hosts}/postgres") for _ in range(2))
        path = a.ask("/api1/sequences", "POST")[0].headers["Location"]
        assert a.ask(path, "PUT", PUT, b'{"position":"5"}')[0].status == 200
        # Killed, not paused: a paused one would keep what it has received already.
        standby.kill()
        assert step_from_5(a, path) == 503
        assert [at(each, path) for each in (a, b, a)] == [None] * 3
        assert [step_from_5(each, path) for each in (a, b)] == [503, 503]
        cluster.kill()
        standby.start()
        standby.promote()
        assert [first_shown(each, path) for each in (a, b)] == ["5", "5"]
        assert [step_from_5(each, path) for each in (a, b)] == [200, 412]
        for each in (a, b):
            assert each.stop(signal.SIGTERM) == 0
            assert "commits wait for a synchronous standby" in "".join(each.said)

    def test_primary_that_wakes_up_after_a_failover_shows_nothing_old(
        self, serve: Serve, cluster: Cluster, standby: Cluster
    ) -> None:
        hosts = f"127.0.0.1:{cluster.port},127.0.0.1:{standby.port}"
        service = serve("--store", f"postgresql://postgres@{hosts}/postgres")
        path = service.ask("/api1/sequences", "POST")[0].headers["Location"]
        assert service.ask(path, "PUT", PUT, b'{"position":"5"}')[0].status == 200
        cluster.pause()
        standby.promote()
        standby.sql("UPDATE bigfib_sequences SET position = 8")
        cluster.resume()
        assert first_shown(service, path) == "8"
        assert service.ask(f"{path}/next", "POST", {"If-Match": '"8"'})[0].status == 200

    def test_primary_of_an_older_timeline_is_refused_until_a_restart(
        self, serve: Serve, cluster: Cluster, standby: Cluster
    ) -> None:
        store = f"postgresql://postgres@127.0.0.1:{cluster.port},127.0.0.1:{standby.port}/postgres"
        service = serve("--store", store)
        path = service.ask("/api1/sequences", "POST")[0].headers["Location"]
        assert service.ask(path, "PUT", PUT, b'{"position":"5"}')[0].status == 200
        cluster.stop()
        standby.promote()
        assert first_shown(service, path) == "5"
        assert step_from_5(service, path) == 200
        standby.stop()
        cluster.start(synchronous_standby_names="")
        assert [at(service, path) for _ in range(5)] == [None] * 5
        assert service.stop(signal.SIGTERM) == 0
        assert "is on timeline 1, but this process has used timeline 2" in "".join(service.said)
        assert at(serve("--store", store), path) == "5"


class TestReport:
    def test_durability_at_start_and_metric_say_whether_there_is_a_synchronous_standby(
        self, serve: Serve, cluster: Cluster
    ) -> None:
        service = serve("--store", cluster.url())
        assert "synchronous_commit on with no synchronous standby" in service.said[-1]
        assert "\nbigfib_store_standby 0.0\n" in service.ask("/metrics")[1].decode()
        standby = synchronous_standby(cluster, free_port())
        try:
            until(lambda: b"\nbigfib_store_standby 1.0\n" in service.ask("/metrics")[1])
            service = serve("--store", cluster.url())
            assert "synchronous_commit on with a synchronous standby" in service.said[-1]
        finally:
            standby.remove()
