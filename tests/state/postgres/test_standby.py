"""Reads of a database that has a synchronous standby."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from bigfib.state.postgres import lookup, standby
from bigfib.state.postgres.session import Session
from bigfib.state.postgres.store import Postgres
from bigfib.state.store import Place, PositionMismatch, SequenceExists, SequenceNotFound, Steps
from tests.postgres import Cluster, free_port, program, synchronous_standby
from tests.state.postgres.stores import ONE, OTHER, opened


@pytest.fixture
def replicated(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster with a synchronous standby."""
    other = synchronous_standby(cluster, free_port())
    yield cluster
    other.remove()


def refused(change: Callable[[], object]) -> None:
    with pytest.raises((PositionMismatch, SequenceExists, SequenceNotFound)):
        change()


def reads(store: Postgres, url: str) -> list[Callable[[], object]]:
    """Return every function of a store that shows what others have changed."""
    return [
        lambda: store.find(ONE),
        lambda: store.find(OTHER),
        lambda: store.step_all([], [ONE]),
        lambda: store.step_all([Steps(OTHER, 1, 0, 9)], [ONE]),
        lambda: refused(lambda: store.step(ONE, 1, 7, 9)),
        lambda: refused(lambda: store.step(OTHER, 1, 7, 9)),
        lambda: refused(lambda: store.put(ONE, 1, Place(3))),
        lambda: refused(lambda: store.delete(ONE, Place(3))),
        lambda: refused(lambda: store.create(ONE, 3)),
        store.check,
        lambda: lookup.find(url, ONE),
    ]


def transactions_of(cluster: Cluster, read: Callable[[], object]) -> int:
    """Return how many transactions write to the log while it reads."""
    count = "SELECT txid_snapshot_xmax(txid_current_snapshot())"
    ((before,),) = cluster.sql(count)
    read()
    ((after,),) = cluster.sql(count)
    assert isinstance(before, int)
    assert isinstance(after, int)
    return after - before


def test_read_is_a_commit_that_the_standby_confirms(replicated: Cluster) -> None:
    with opened(replicated.url()) as store:
        store.create(ONE, 5)
        counts = [transactions_of(replicated, read) for read in reads(store, replicated.url())]
        assert counts == [1] * 11
        assert store.has_standby


def test_read_without_a_standby_writes_nothing(cluster: Cluster) -> None:
    with opened(cluster.url()) as store:
        store.create(ONE, 5)
        assert not any(transactions_of(cluster, read) for read in reads(store, cluster.url()))
        assert not store.has_standby


def test_timeline_is_shown_to_any_user_and_grows_with_a_promotion(cluster: Cluster) -> None:
    cluster.sql("CREATE ROLE app LOGIN")
    other = synchronous_standby(cluster, free_port())
    try:
        assert timeline_seen(cluster) == (cluster_id(cluster), 1)
        other.promote()
        assert timeline_seen(other) == (cluster_id(cluster), 2)
    finally:
        other.remove()


def timeline_seen(cluster: Cluster) -> tuple[bytes, int]:
    with closing(Session(cluster.url(user="app"))) as session:
        return standby.timeline(session)


def test_timeline_is_0_where_the_server_does_not_show_it(cluster: Cluster) -> None:
    cluster.sql("REVOKE EXECUTE ON FUNCTION pg_control_system FROM public", "CREATE ROLE app LOGIN")
    assert timeline_seen(cluster) == (b"", 0)


def cluster_id(cluster: Cluster) -> bytes:
    """Return the id that the cluster's own program shows."""
    command = [str(program("pg_controldata")), str(cluster.data)]
    shown = subprocess.run(cluster.as_user(*command), capture_output=True, check=True).stdout
    found = re.search(rb"system identifier: +(\d+)", shown)
    assert found
    return found[1]
