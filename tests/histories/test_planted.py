"""Histories of real clients reveal the faults of a proxy, and none without it."""

import random
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.histories.checker import NotLinearizable, check
from tests.histories.clients import SHARED, Address, Client, Gone, indices
from tests.histories.history import Recorder, Reply
from tests.histories.load import Anything, Owner, work
from tests.histories.model import At
from tests.histories.planted import Fault, proxy
from tests.postgres import Cluster, free_port, synchronous_standby
from tests.service import Serve, until


@pytest.fixture
def upstream(serve: Serve) -> Iterator[Address]:
    service = serve()
    yield Address(service.host, service.port)
    assert "Traceback" not in "".join(service.said)


def record(address: Address, requests: int) -> Recorder:
    recorder = Recorder()
    anything = Anything(random.Random(2))
    work([(Client(number, address, recorder), anything) for number in range(4)], requests)
    return recorder


@pytest.mark.parametrize("fault", [Fault.DOUBLE_STEP, Fault.STALE_READ])
def test_planted_fault_is_found_and_without_it_nothing(upstream: Address, fault: Fault) -> None:
    with proxy(upstream, Fault.NONE) as address:
        recorder = record(address, 100)
    check(recorder.histories(), {SHARED: At(0)})
    # What went before is checked no more, but where it has led.
    reader = Recorder()
    client = Client(9, upstream, reader)
    reply = client.read(SHARED)
    client.close()
    assert reply is not None
    assert reply.place
    with proxy(upstream, fault) as address:
        recorder = record(address, 100)
    with pytest.raises(NotLinearizable):
        check(recorder.histories(), {SHARED: At(reply.place[0], reply.version or 0)})


def test_step_with_if_match_sent_again_until_answered_is_made_once(upstream: Address) -> None:
    recorder = Recorder()
    owner = Owner()
    with proxy(upstream, Fault.LOST_REPLY) as address:
        client = Client(0, address, recorder)
        while owner.steps < 200:
            with suppress(Gone):
                owner(client)
        client.close()
    assert owner.retries > 5
    check(recorder.histories(), {})


@pytest.mark.parametrize("fault", [Fault.LOST_REPLY, Fault.POSITION_ONLY])
def test_step_sent_again_after_others_pushed_back_is_made_once_by_its_whole_tag(
    upstream: Address, fault: Fault
) -> None:
    recorder = Recorder()
    owner = Owner(alone=False)
    with proxy(upstream, fault) as address:
        client, other = (Client(number, address, recorder) for number in range(2))
        while owner.retries < 10:
            for act in (owner, owner.push_back):
                with suppress(Gone):
                    act(client if act is owner else other)
        client.close()
        other.close()
    if fault is Fault.LOST_REPLY:
        check(recorder.histories(), {})
    else:
        with pytest.raises(NotLinearizable):
            check(recorder.histories(), {})


def show_a_cancelled_step(
    primary: Cluster, standby: Cluster, reader: Client, _stepper: Client
) -> None:
    """Let a client see a step that no standby has, and the standby take over."""
    standby.kill()
    with suppress(Gone):
        reader.next()
    until(primary.cancel_waits)
    for _ in range(3):
        reader.read(SHARED)
    primary.kill()
    standby.start()
    standby.promote()


def wake_the_old_primary(
    primary: Cluster, standby: Cluster, reader: Client, stepper: Client
) -> None:
    """Let a client ask the primary again after another has stepped at the one that replaces it."""
    primary.pause()
    standby.promote()
    until(lambda: answer(stepper.next))
    primary.resume()
    reader.read(SHARED)


def answer(ask: Callable[[], Reply | None]) -> Reply | None:
    with suppress(Gone):
        return ask()
    return None


@pytest.mark.campaign
@pytest.mark.parametrize("happens", [show_a_cancelled_step, wake_the_old_primary])
@pytest.mark.parametrize("confirms", [True, False])
def test_read_that_no_standby_confirms_is_found(
    serve: Serve,
    cluster: Cluster,
    happens: Callable[[Cluster, Cluster, Client, Client], None],
    confirms: bool,
) -> None:
    standby = synchronous_standby(cluster, free_port())
    try:
        if not confirms:
            # Without this function the database is taken for one that needs no confirmation.
            for (function,) in cluster.sql(
                "SELECT oid::regprocedure::text FROM pg_proc "
                "WHERE proname = 'pg_logical_emit_message'"
            ):
                cluster.sql(f"ALTER FUNCTION {function} RENAME TO unknown")
        hosts = f"127.0.0.1:{cluster.port},127.0.0.1:{standby.port}"
        recorder = Recorder()
        clients = []
        for number in range(2):
            service = serve("--store", f"postgresql://postgres@{hosts}/postgres")
            clients.append(Client(number, Address(service.host, service.port), recorder))
        for each in clients:
            each.next()
        happens(cluster, standby, *clients)
        until(lambda: answer(clients[1].current))
        for each in clients:
            each.close()
    finally:
        standby.remove()
    if confirms:
        check(recorder.histories(), {SHARED: At(0)})
    else:
        with pytest.raises(NotLinearizable):
            check(recorder.histories(), {SHARED: At(0)})


@pytest.mark.parametrize(
    ("term", "n"), [(0, {0}), (1, {1, 2}), (2, {3}), (354224848179261915075, {100})]
)
def test_index_of_a_term_is_found(term: int, n: set[int]) -> None:
    assert indices(term) == n
