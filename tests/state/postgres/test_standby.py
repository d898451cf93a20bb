"""Reads of a database that has a synchronous standby."""

from collections.abc import Callable, Iterator

import pytest

from bigfib.state.postgres import lookup
from bigfib.state.postgres.store import Postgres
from bigfib.state.store import Place, PositionMismatch, SequenceExists, SequenceNotFound, Steps
from tests.postgres import Cluster, free_port, synchronous_standby
from tests.state.postgres.stores import ONE, OTHER, opened


@pytest.fixture
def replicated(cluster: Cluster) -> Iterator[Cluster]:
    """A cluster with a synchronous standby."""
    standby = synchronous_standby(cluster, free_port())
    yield cluster
    standby.remove()


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
