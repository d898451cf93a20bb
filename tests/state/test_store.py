"""The promises of both stores, by the same tests: a state log, and a database."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bigfib.numbers.decimals import DecimalPair, StartOfSequence
from bigfib.sequences import SHARED, Sequences, TooManySequences, UnknownSequence
from bigfib.state.log import Log
from bigfib.state.postgres.store import Postgres
from bigfib.state.store import Place, PositionMismatch, SequenceExists, SequenceNotFound, Store
from bigfib.terms import INLINE_LIMIT

ONE = bytes(range(16))
# Python's `int` refuses to write more than 4,300 digits.
FAR = 10**5000


@pytest.fixture(params=["log", "database"])
def store(request: pytest.FixtureRequest, path: Path) -> Iterator[Store]:
    opened: Log | Postgres
    if request.param == "log":
        opened = Log(path, permanent=SHARED)
    else:
        opened = Postgres(request.getfixturevalue("database"), permanent=SHARED)
    with closing(opened):
        yield opened


def computed(sequences: Sequences) -> list[int]:
    """Return a list to which each position is appended whose terms are computed anew."""
    positions = []

    def pair_at(position: int) -> DecimalPair:
        positions.append(position)
        return DecimalPair(position)

    sequences.pair_at = pair_at
    return positions


class TestStore:
    def test_created_sequence_is_found_and_not_created_again(self, store: Store) -> None:
        assert store.find(ONE) is None
        store.create(ONE, 5)
        assert store.find(ONE) == 5
        with pytest.raises(SequenceExists):
            store.create(ONE, 7)
        assert store.find(ONE) == 5

    def test_step_outside_of_its_bounds_is_refused(self, store: Store) -> None:
        store.create(ONE, 5)
        assert store.step(ONE, 1, 0, 5) == 6
        assert store.step(ONE, -4, 6, 6) == 2
        for by, lowest, highest in ((1, 0, 1), (1, 3, 9), (-3, 3, 9)):
            with pytest.raises(PositionMismatch) as mismatch:
                store.step(ONE, by, lowest, highest)
            assert mismatch.value.position == 2
        assert store.find(ONE) == 2

    def test_positions_have_no_ceiling(self, store: Store) -> None:
        store.create(ONE, FAR)
        assert store.step(ONE, 1, 0, FAR) == FAR + 1
        store.put(ONE, FAR * FAR, Place(FAR + 1))
        assert store.find(ONE) == FAR * FAR

    def test_change_of_a_missing_sequence_raises(self, store: Store) -> None:
        with pytest.raises(SequenceNotFound):
            store.step(ONE, 1, 0, 9)
        with pytest.raises(SequenceNotFound):
            store.put(ONE, 1)
        with pytest.raises(SequenceNotFound):
            store.delete(ONE)
        assert store.find(ONE) is None

    def test_put_and_delete_from_the_position_expected_only(self, store: Store) -> None:
        store.create(ONE, 5)
        with pytest.raises(PositionMismatch) as mismatch:
            store.put(ONE, 9, Place(4))
        assert mismatch.value.position == 5
        with pytest.raises(PositionMismatch) as mismatch:
            store.delete(ONE, Place(6))
        assert mismatch.value.position == 5
        store.put(ONE, 9, Place(5))
        assert store.find(ONE) == 9
        store.delete(ONE, Place(9))
        assert store.find(ONE) is None

    def test_change_of_one_version_is_refused_although_the_position_is_back(
        self, store: Store
    ) -> None:
        store.create(ONE, 5)
        seen = Place(5, store.version(ONE))
        store.step(ONE, 1, 5, 5, seen.version)
        store.put(ONE, 5)
        for change in (
            lambda: store.step(ONE, 1, 5, 5, seen.version),
            lambda: store.put(ONE, 9, seen),
            lambda: store.delete(ONE, seen),
        ):
            with pytest.raises(PositionMismatch) as mismatch:
                change()
            assert mismatch.value.position == 5
        now = Place(5, store.version(ONE))
        assert now == Place(5, (seen.version or 0) + 2)
        store.put(ONE, 5, now)
        store.delete(ONE, Place(5, store.version(ONE)))
        assert (store.find(ONE), store.version(ONE)) == (None, 0)

    def test_sequence_created_again_has_other_versions(self, store: Store) -> None:
        seen = set()
        for _ in range(20):
            store.create(ONE, 5)
            seen.add(store.version(ONE))
            store.delete(ONE)
        assert len(seen) == 20

    def test_store_counts_its_sequences(self, store: Store) -> None:
        store.create(SHARED, 1)
        assert not store.holds(1)
        store.create(ONE, 0)
        assert store.holds(1)
        store.delete(ONE)
        assert not store.holds(1)

    def test_check_after_a_commit_passes(self, store: Store) -> None:
        store.create(ONE, 0)
        store.commit()
        store.check()


class TestSequences:
    """Sequences behave the same on any store."""

    def test_steps_forward_and_back_give_the_terms_on_the_way(self, store: Store) -> None:
        sequences = Sequences(store)
        values = [sequences.forward(SHARED).digits() for _ in range(6)]
        assert values == [b"1", b"1", b"2", b"3", b"5", b"8"]
        assert sequences.back(SHARED).digits() == b"5"
        assert sequences.step(SHARED, 5).digits() == b"55"
        assert sequences.step(SHARED, -10).digits() == b"0"
        for by in (-1, -2):
            with pytest.raises(StartOfSequence):
                sequences.step(SHARED, by)
        with pytest.raises(StartOfSequence):
            sequences.back(SHARED)
        assert store.find(SHARED) == 0

    def test_a_step_from_the_position_expected_only(self, store: Store) -> None:
        sequences = Sequences(store)
        one = sequences.create()
        assert sequences.step(one, 3, Place(0)).position == 3
        with pytest.raises(PositionMismatch) as mismatch:
            sequences.step(one, 1, Place(0))
        assert mismatch.value.position == 3
        with pytest.raises(PositionMismatch):
            sequences.seek(one, 9, Place(0))
        with pytest.raises(PositionMismatch):
            sequences.delete(one, Place(0))
        sequences.delete(one, Place(3))
        with pytest.raises(UnknownSequence):
            sequences.step(one, 1)

    def test_shared_sequence_of_which_there_is_nothing_yet_has_version_0(
        self, store: Store
    ) -> None:
        sequences = Sequences(store)
        for change in (sequences.step, sequences.seek):
            assert sequences.place(SHARED) == Place(0, 0)
            for expected in (Place(0, 1), Place(1, 0), Place(1)):
                with pytest.raises(PositionMismatch):
                    change(SHARED, 3, expected)
            assert change(SHARED, 3, Place(0, 0)).position == 3
            assert sequences.place(SHARED) == Place(3, 1)
            with pytest.raises(PositionMismatch):
                change(SHARED, 3, Place(0, 0))
            store.delete(SHARED)

    def test_as_many_as_there_may_be(self, store: Store) -> None:
        sequences = Sequences(store, max_sequences=2)
        assert sequences.forward(SHARED).position == 1
        first = sequences.create()
        sequences.forward(ONE)
        for _ in range(2):
            with pytest.raises(TooManySequences, match="2"):
                sequences.create()
        sequences.delete(first)
        sequences.create()

    def test_steps_across_the_limit_of_what_is_computed_at_once(self, store: Store) -> None:
        sequences = Sequences(store)
        asked = computed(sequences)
        sequences.seek(SHARED, INLINE_LIMIT)
        for by in (1, 1, 1, -1, -1, -1, 2, -5):
            sequence = sequences.step(SHARED, by)
        assert sequence.position == store.find(SHARED) == INLINE_LIMIT - 3
        assert asked == [INLINE_LIMIT]


class TestManyOnOneDatabase:
    """Each `Sequences` is a server, whose terms in memory the others make outdated."""

    @pytest.fixture
    def servers(self, database: str) -> Iterator[list[Sequences]]:
        stores = [Postgres(database, permanent=SHARED) for _ in range(3)]
        yield [Sequences(store) for store in stores]
        for store in stores:
            store.close()

    def test_terms_in_memory_follow_steps_of_other_servers(self, servers: list[Sequences]) -> None:
        a, b, _ = servers
        a.seek(SHARED, 300)
        assert b.current(SHARED).position == 300
        for number in range(1, 30):
            assert a.forward(SHARED).position == 300 + 2 * number - 1
            assert b.forward(SHARED).position == 300 + 2 * number
        a.seek(SHARED, 1)
        assert b.back(SHARED).digits() == b"0"
        with pytest.raises(StartOfSequence):
            a.back(SHARED)
        assert b.forward(SHARED).digits() == b"1"

    def test_a_few_steps_behind_are_walked(self, servers: list[Sequences]) -> None:
        a, b, _ = servers
        a.seek(SHARED, 100_000)
        b.current(SHARED)
        asked = computed(b)
        a.step(SHARED, 50)
        assert b.forward(SHARED).digits() == a.current(SHARED).digits()
        assert asked == [], "50 steps are cheaper than 20 thousand digits"
        a.step(SHARED, 5000)
        assert b.forward(SHARED).digits() == a.current(SHARED).digits()
        assert asked == [105_052], "5000 are not"

    def test_sequence_deleted_by_another_server_is_not_found(
        self, servers: list[Sequences]
    ) -> None:
        a, b, _ = servers
        one = a.create()
        assert b.step(one, 2).position == 2
        a.delete(one)
        with pytest.raises(UnknownSequence):
            b.step(one, 2)
        with pytest.raises(UnknownSequence):
            b.seek(one, 2)
        with pytest.raises(UnknownSequence):
            b.place(one)
