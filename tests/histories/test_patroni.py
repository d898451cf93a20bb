"""Histories over the events of a cluster that Patroni runs."""

import signal
import threading
from collections import Counter
from collections.abc import Callable

import pytest

from bigfib.state.postgres import schema
from tests.histories.load import working
from tests.histories.test_services import History
from tests.patroni import Patroni, patroni
from tests.service import Serve, until

pytestmark = pytest.mark.usefixtures("torture")


def kill_primary(cluster: Patroni) -> None:
    cluster.leader().signal_postgres(signal.SIGKILL)


def kill_node(cluster: Patroni) -> None:
    node = cluster.leader()
    node.signal_all(signal.SIGKILL)
    (other,) = (each for each in cluster.nodes if each is not node)
    until(lambda: other.state().get("role") == "master")
    node.start()


def freeze_primary(cluster: Patroni) -> None:
    """Freeze PostgreSQL alone until the standby has taken over.

    Its Patroni hangs with it. When PostgreSQL wakes, Patroni 3.0 goes on as the leader that it was,
    and the steps made meanwhile are lost, unless a watchdog has ended it.
    """
    node = cluster.leader()
    node.signal_postgres(signal.SIGSTOP)
    (other,) = (each for each in cluster.nodes if each is not node)
    until(lambda: other.state().get("role") == "master")
    node.restart_patroni()
    node.signal_postgres(signal.SIGCONT)


def switch_over(cluster: Patroni) -> None:
    cluster.switch_over()


def stop_etcd(cluster: Patroni) -> None:
    cluster.signal_etcd(signal.SIGSTOP)
    # Longer than the leader's key lasts.
    threading.Event().wait(15)
    cluster.signal_etcd(signal.SIGCONT)


def freeze_node(cluster: Patroni) -> None:
    node = cluster.leader()
    node.signal_all(signal.SIGSTOP)
    (other,) = (each for each in cluster.nodes if each is not node)
    until(lambda: other.state().get("role") == "master")
    node.signal_all(signal.SIGCONT)


EVENTS: list[Callable[[Patroni], None]] = [
    *(kill_primary, freeze_primary, kill_node, freeze_node, switch_over, stop_etcd)
]


def test_history_over_events_of_patroni_is_linearizable(
    serve: Serve, tried: Counter[str], capsys: pytest.CaptureFixture[str]
) -> None:
    history = History(5)
    with patroni() as cluster:
        assert schema.init(cluster.url) == "made"
        services = [serve("--store", cluster.url) for _ in range(2)]
        with working(history.clients(services)):
            for event in EVENTS * 2:
                history.more(300)
                before, began = history.recorder.counts(), history.recorder.now()
                event(cluster)
                history.more(300)
                until(cluster.is_whole)
                history.more(300)
                after = history.recorder.counts()
                gap = history.longest_gap(since=began)
                seen = {what: after[what] - before[what] for what in after}
                with capsys.disabled():
                    print(f"\n{event.__name__}: longest gap {gap:.1f} s, {seen}", end="")
                tried[f"events of Patroni with a history: {event.__name__}"] += 1
        history.check(services[0], tried, "Patroni")
