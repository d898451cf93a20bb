"""Steps that share a transaction, without a service."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import NoReturn

import psycopg
import pytest
from gmpy2 import fib, mpz

from bigfib.api.commit import Committer
from bigfib.api.representations import ValueReply
from bigfib.api.step_queue import NotMade, StepQueue, WaitingStep
from bigfib.numbers.decimals import DecimalPair, StartOfSequence
from bigfib.sequences import SHARED, Sequences
from bigfib.state.postgres.store import Postgres
from bigfib.state.store import WAIT_SECONDS
from bigfib.terms import INLINE_LIMIT

ONE = bytes(16)


@pytest.fixture
def store(database: str) -> Iterator[Postgres]:
    with closing(Postgres(database, permanent=SHARED)) as store:
        yield store


@pytest.fixture
def sequences(store: Postgres) -> Sequences:
    return Sequences(store)


@pytest.fixture
def queue(sequences: Sequences, store: Postgres) -> StepQueue:
    return StepQueue(sequences, store)


def test_each_batched_step_returns_the_term_after_itself(
    sequences: Sequences, queue: StepQueue, store: Postgres
) -> None:
    sequences.seek(SHARED, 10)
    waiting = [queue.add(SHARED, by) for by in (1, 1, -1, 0, 1)]
    assert store.find(SHARED) == 10, "nothing is made yet"
    assert [each.digits() for each in waiting] == [b"89", b"144", b"89", b"89", b"144"]
    assert store.find(SHARED) == 12


def test_a_look_changes_nothing(sequences: Sequences, queue: StepQueue, store: Postgres) -> None:
    sequences.seek(SHARED, 10)
    store.put(SHARED, 30)
    assert [queue.add(one, 0).digits() for one in (SHARED, ONE)] == [b"832040", b"0"]
    assert (store.find(SHARED), store.find(ONE)) == (30, None)


def test_step_that_might_be_refused_is_not_batched(sequences: Sequences, queue: StepQueue) -> None:
    assert not queue.takes(SHARED, 1), "nobody has seen it"
    sequences.current(SHARED)
    assert not queue.takes(SHARED, 1), "it may not be in the store"
    sequences.seek(SHARED, 1)
    assert queue.takes(SHARED, 1)
    assert not queue.takes(SHARED, -1), "others may be faster"
    sequences.seek(SHARED, 1000)
    assert queue.takes(SHARED, -1)


def test_steps_of_a_batch_are_made_together_or_not_at_all(
    sequences: Sequences, queue: StepQueue, store: Postgres
) -> None:
    sequences.seek(SHARED, 1000)
    waiting = [queue.add(SHARED, -1) for _ in range(3)]
    other = queue.add(SHARED, 1)
    store.put(SHARED, 2)
    for each in (*waiting, other):
        with pytest.raises(NotMade):
            each.digits()
    assert store.find(SHARED) == 2
    # The next step is not batched, so that it gets the reason.
    assert not queue.takes(SHARED, -1)


def test_a_client_that_has_gone_makes_no_step(
    sequences: Sequences, queue: StepQueue, store: Postgres
) -> None:
    sequences.seek(SHARED, 10)
    reply = ValueReply(Committer(store))
    bodies = []
    for _ in range(3):
        body = iter(reply.later(queue.add(SHARED, 1))[2])
        assert next(body) == b"{"
        bodies.append(body)
    # bjoern drops the reply in the same way.
    del body, bodies[1]
    assert [b"".join(body) for body in bodies] == [
        b'"value":"89","status":"200"}',
        b'"value":"144","status":"200"}',
    ]
    assert store.find(SHARED) == 12


def test_batched_step_far_from_the_terms_in_memory_is_not_made(
    sequences: Sequences, queue: StepQueue, database: str
) -> None:
    sequences.seek(SHARED, INLINE_LIMIT + 10)
    computed: list[int] = []

    def pair_at(position: int) -> None:
        computed.append(position)

    sequences.pair_at = pair_at  # type: ignore[assignment]
    with closing(Postgres(database, permanent=SHARED)) as other:
        assert other.step(SHARED, 100, 0, 10**9) == INLINE_LIMIT + 110
        behind = [queue.add(SHARED, by) for by in (1, 1)]
        assert behind[1].digits() == Sequences(other).current(SHARED).digits()
        # No term is in memory so far away, and no step is made.
        other.put(SHARED, 5 * INLINE_LIMIT)
        with pytest.raises(NotMade):
            queue.add(SHARED, 1).digits()
        assert other.find(SHARED) == 5 * INLINE_LIMIT
    assert computed == []


def test_batch_of_a_large_term_is_not_longer_than_what_may_be_stepped(
    sequences: Sequences, queue: StepQueue, database: str
) -> None:
    start = INLINE_LIMIT + 500
    sequences.seek(SHARED, start)
    waiting: list[WaitingStep] = []
    while len(waiting) < 1000 and queue.takes(SHARED, 1):
        waiting.append(queue.add(SHARED, 1))
    assert 100 < len(waiting) < 1000
    with closing(Postgres(database, permanent=SHARED)) as other:
        # Others may be as fast.
        other.step(SHARED, len(waiting), 0, 10**9)
        last = [each.digits() for each in waiting][-1]
        assert other.find(SHARED) == start + 2 * len(waiting)
    assert mpz(last) == fib(start + 2 * len(waiting))


def test_unexpected_error_ends_the_wait_of_all_steps(
    sequences: Sequences, queue: StepQueue, store: Postgres
) -> None:
    for one in (SHARED, ONE):
        store.create(one, 10)
        sequences.current(one)

    def fail(position: int) -> NoReturn:
        raise ZeroDivisionError(position)

    sequences.pair_at = fail
    store.put(ONE, 5000)
    waiting = [queue.add(one, 1) for one in (ONE, SHARED, SHARED)]
    with pytest.raises(ZeroDivisionError):
        waiting[1].digits()
    for each in waiting:
        assert each.is_settled
        each.withdraw()
        with pytest.raises(NotMade):
            each.digits()
    sequences.pair_at = DecimalPair
    assert queue.add(SHARED, 1).digits() == b"233"


def test_locked_sequence_does_not_delay_others(
    sequences: Sequences, queue: StepQueue, store: Postgres, database: str
) -> None:
    for one in (SHARED, ONE):
        store.create(one, 10)
        sequences.current(one)
    with psycopg.connect(database) as other:
        other.execute("SELECT FROM bigfib_sequences WHERE id = %s FOR UPDATE", [ONE])
        locked, free = queue.add(ONE, 1), queue.add(SHARED, 1)
        assert free.digits() == b"89"
        with pytest.raises(NotMade):
            locked.digits()
        again, free = queue.add(ONE, 1), queue.add(SHARED, 1)
        assert free.digits() == b"144"
    assert again.digits() == b"89", "it has been waited for a second time"


def test_steps_of_a_locked_sequence_wait_for_it_with_those_added_meanwhile(
    sequences: Sequences, queue: StepQueue, store: Postgres, database: str
) -> None:
    sequences.seek(SHARED, 10)
    store.create(ONE, 10)
    with psycopg.connect(database) as other:
        other.execute("SELECT FROM bigfib_sequences WHERE id = %s FOR UPDATE", [SHARED])
        early = [queue.add(SHARED, 1) for _ in range(2)]
        assert not early[0].try_until(0.02)
        gone, late, free = queue.add(SHARED, 1), queue.add(SHARED, 1), queue.add(ONE, 0)
        assert free.digits() == b"55"
        gone.withdraw()
        assert not late.try_until(0.02)
    assert [each.digits() for each in (*early, late)] == [b"89", b"144", b"233"]
    assert store.find(SHARED) == 13


def test_a_reply_of_a_locked_sequence_lets_others_leave_before_it(
    sequences: Sequences, queue: StepQueue, store: Postgres, database: str
) -> None:
    sequences.seek(SHARED, 10)
    body = iter(ValueReply(Committer(store)).later(queue.add(SHARED, 1))[2])
    with psycopg.connect(database) as other:
        other.execute("SELECT FROM bigfib_sequences WHERE id = %s FOR UPDATE", [SHARED])
        began = time.monotonic()
        pieces = [next(body) for _ in range(4)]
        # The time of the first piece, and three waits of a tenth of what a request may take.
        assert time.monotonic() - began < 4 * WAIT_SECONDS / 10
    assert b"".join((*pieces, *body)) == b'{"value":"89","status":"200"}'
    assert pieces == [b"{", b'"', b"v", b"a"]


def test_steps_that_waited_too_long_are_given_up_without_the_later_ones(
    sequences: Sequences, queue: StepQueue, store: Postgres, database: str
) -> None:
    sequences.seek(SHARED, 10)
    with psycopg.connect(database) as other:
        other.execute("SELECT FROM bigfib_sequences WHERE id = %s FOR UPDATE", [SHARED])
        early = [queue.add(SHARED, 1) for _ in range(2)]
        assert not early[0].try_until(0.5)
        late = queue.add(SHARED, 1)
        for each in early:
            with pytest.raises(NotMade):
                each.digits()
    assert late.digits() == b"89"
    assert store.find(SHARED) == 11


@pytest.mark.parametrize("by", [-1, -3])
def test_steps_back_where_another_server_went_to_the_start_are_refused(
    sequences: Sequences,
    queue: StepQueue,
    store: Postgres,
    by: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def step_in_one_transaction() -> None:
        waiting = [queue.add(SHARED, -1) for _ in range(-by)]
        waiting[0].digits()

    ways: list[Callable[[], object]] = [step_in_one_transaction, lambda: sequences.step(SHARED, by)]
    if by == -1:
        ways.append(lambda: sequences.back(SHARED))
    for step in ways:
        sequences.seek(SHARED, 9)
        store.put(SHARED, -by - 1)
        with pytest.raises((StartOfSequence, NotMade)):
            step()
        assert store.find(SHARED) == -by - 1
    # The table itself refuses positions below 0, but that error would close the connection.
    assert "lost" not in caplog.text
