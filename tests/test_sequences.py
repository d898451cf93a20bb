"""Sequences on a real log."""

import gc
import itertools
import random
import secrets
from pathlib import Path

import pytest
from flint import fmpz

from bigfib.numbers import kernel
from bigfib.numbers.decimals import DecimalPair, StartOfSequence
from bigfib.numbers.fibonacci import IndexTooLarge
from bigfib.sequences import (
    SHARED,
    Sequences,
    TooManySequences,
    UnknownSequence,
    format_id,
    parse_id,
)
from bigfib.state.log import Durability, Log
from bigfib.state.packed import unpack

FARTHEST = 1_000_000


def term(position: int) -> bytes:
    return fmpz.fib_ui(fmpz(position)).str(base=10).encode()


def resident_bytes() -> int:
    gc.collect()
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) * 1024


def test_steps_are_in_the_log(path: Path) -> None:
    with Log(path) as log:
        sequences = Sequences(log)
        for _ in range(10):
            sequence = sequences.forward(SHARED)
        assert sequence.digits() == b"55"
        assert sequences.back(SHARED).digits() == b"34"
        assert log.position(SHARED) == 9
    with Log(path) as log:
        assert Sequences(log).current(SHARED).digits() == b"34"


def test_step_back_at_the_start_changes_nothing(path: Path) -> None:
    with Log(path) as log:
        sequences = Sequences(log)
        end = log.changes
        with pytest.raises(StartOfSequence):
            sequences.back(SHARED)
        with pytest.raises(StartOfSequence):
            sequences.step(SHARED, -2)
        assert log.changes == end
        assert sequences.current(SHARED).position == 0


class TestMoves:
    def test_random_moves_end_at_the_terms_of_flint(self, path: Path) -> None:
        # Short distances are stepped, longer ones computed.
        randomness = random.Random(4)
        with Log(path, Durability.OS) as log:
            sequences = Sequences(log)
            position = 0
            for _ in range(300):
                by = randomness.choice([-1, 1]) * int(10 ** randomness.uniform(0, 4.3))
                if position + by < 0:
                    with pytest.raises(StartOfSequence):
                        sequences.step(SHARED, by)
                else:
                    position += by
                    sequences.step(SHARED, by)
                sequence = sequences.current(SHARED)
                assert sequence.position == log.position(SHARED) == position
                assert sequence.digits() == term(position)

    def test_moves_over_every_short_distance_are_exact(self, path: Path) -> None:
        with Log(path, Durability.OS) as log:
            sequences = Sequences(log)
            for distance in range(-25, 26):
                sequences.seek(SHARED, 5000)
                assert sequences.step(SHARED, distance).digits() == term(5000 + distance)

    def test_moves_end_at_the_farthest_position_and_steps_go_on(self, path: Path) -> None:
        with Log(path) as log:
            sequences = Sequences(log, farthest=FARTHEST)
            assert sequences.seek(SHARED, FARTHEST).digits() == term(FARTHEST)
            end = log.changes
            for too_far in (FARTHEST + 1, 10**30):
                with pytest.raises(IndexTooLarge, match="1000000"):
                    sequences.seek(SHARED, too_far)
            with pytest.raises(IndexTooLarge, match="steps of one"):
                sequences.step(SHARED, 2)
            assert log.changes == end
            assert sequences.step(SHARED, 1).digits() == term(FARTHEST + 1)
            assert sequences.step(SHARED, -2).digits() == term(FARTHEST - 1)

    def test_move_beyond_the_inline_limit_steps_only_so_far_that_others_wait_for_seconds(
        self, path: Path
    ) -> None:
        computed: list[int] = []

        def pair_at(position: int) -> DecimalPair:
            computed.append(position)
            return DecimalPair(position)

        with Log(path) as log:
            sequences = Sequences(log, pair_at=pair_at)
            for position in (4_000_000, 4_000_300, 4_000_800, 4_000_790):
                assert sequences.seek(SHARED, position).position == position
        assert computed == [4_000_000, 4_000_800]

    def test_a_move_is_in_the_log(self, path: Path) -> None:
        with Log(path) as log:
            Sequences(log).seek(SHARED, 300)
        with Log(path) as log:
            assert Sequences(log).current(SHARED).digits() == term(300)


class TestOwn:
    def test_created_sequence_is_found_until_it_is_deleted(self, path: Path) -> None:
        with Log(path) as log:
            sequences = Sequences(log)
            sequence = sequences.create()
            assert len(sequence) == 16
            assert sequences.place(sequence).position == 0
            sequences.step(sequence, 10)
            sequences.delete(sequence)
            with pytest.raises(UnknownSequence):
                sequences.place(sequence)
        with Log(path) as log, pytest.raises(UnknownSequence):
            Sequences(log).place(sequence)

    @pytest.mark.parametrize("way", ["forward", "back"])
    @pytest.mark.parametrize("is_cached", [True, False])
    def test_step_without_creation_leaves_what_is_deleted_deleted(
        self, path: Path, way: str, is_cached: bool
    ) -> None:
        """As another server deletes it, or the expiry does."""
        with Log(path) as log:
            sequences = Sequences(log)
            step = getattr(sequences, way)
            sequence = sequences.create()
            for server in (sequences, Sequences(log)):
                server.step(sequence, 5)
            assert step(sequence, creates=False).position == (11 if way == "forward" else 9)
            log.delete(sequence)
            if not is_cached:
                sequences.forget(sequence)
            changes = log.changes
            for _ in range(2):
                with pytest.raises(UnknownSequence):
                    step(sequence, creates=False)
            assert log.find(sequence) is None
            assert log.changes == changes
            # The shared one is never missing.
            assert sequences.forward(SHARED, creates=False).position == 1

    def test_the_shared_one_needs_no_creation(self, path: Path) -> None:
        with Log(path) as log:
            assert Sequences(log).place(SHARED).position == 0

    def test_as_many_as_there_may_be(self, path: Path) -> None:
        with Log(path) as log:
            sequences = Sequences(log, max_sequences=3)
            first = sequences.create()
            sequences.create()
            sequences.forward(bytes(16))
            end = log.changes
            with pytest.raises(TooManySequences, match="3"):
                sequences.create()
            with pytest.raises(TooManySequences, match="3"):
                sequences.forward(b"another of 16 by")
            assert log.changes == end
            # Existing sequences can still be stepped, including the shared one.
            assert sequences.forward(first).position == 1
            assert sequences.forward(SHARED).position == 1
            sequences.delete(first)
            sequences.delete(bytes(16))
            assert sequences.place(sequences.create()).position == 0

    def test_id_as_text_is_32_hexadecimal_digits(self) -> None:
        assert parse_id("shared") == SHARED
        assert format_id(SHARED) == "shared"
        assert parse_id("00" * 15 + "ff") == bytes(15) + b"\xff"
        assert format_id(bytes(15) + b"\xff") == "00" * 15 + "ff"
        for text in ("", "Shared", "0" * 31, "0" * 33, "g" * 32, "A" * 32, "\u0660" * 32):
            with pytest.raises(UnknownSequence):
                parse_id(text)


class TestMemory:
    def test_sequence_evicted_from_memory_keeps_its_position(self, path: Path) -> None:
        with Log(path, Durability.OS) as log:
            sequences = Sequences(log, cache_bytes=100_000)
            for step in (1, 2):
                for number in range(1000):
                    assert sequences.forward(b"%d" % number).position == step
            assert sequences.memory.values[0] <= 100_000

    def test_cached_bytes_after_deleting_all_sequences_are_zero(self, path: Path) -> None:
        # However its terms grew and shrank, a deleted sequence frees as much room as it took.
        randomness = random.Random(5)
        with Log(path, Durability.OS) as log:
            sequences = Sequences(log, cache_bytes=200_000)
            ids = [sequences.create() for _ in range(50)]
            for _ in range(2000):
                sequence_id = randomness.choice(ids)
                sequences.step(sequence_id, 5 + int(10 ** randomness.uniform(0, 3)))
                for _ in range(5):
                    sequences.back(sequence_id)
                assert sequences.memory.values[0] <= 200_000
            for sequence_id in ids:
                sequences.delete(sequence_id)
            assert sequences.memory.values[0] == 0

    def test_cache_keeps_as_many_long_sequences_as_it_has_room_for(self, path: Path) -> None:
        # Measured as memory of the process: what a sequence at 20 thousand digits takes.
        each = 40_700 if kernel.load() else 125_900
        with Log(path, Durability.OS) as log:
            sequences = Sequences(log, cache_bytes=50 * each)
            ids = [sequences.create() for _ in range(60)]
            for sequence_id in ids:
                sequences.seek(sequence_id, 95_700)
                assert len(sequences.forward(sequence_id).digits()) == 20_000
            kept = [each for each in ids if sequences.last_seen(each) is not None]
            assert kept == ids[-len(kept) :]
            assert len(kept) == pytest.approx(50, abs=3)

    @pytest.mark.campaign
    def test_a_hundred_thousand_clients_taking_turns(self, path: Path) -> None:
        with Log(path, Durability.OS) as log:
            sequences = Sequences(log, cache_bytes=8 << 20)
            ids = [secrets.token_bytes(16) for _ in range(100_000)]
            for sequence_id in ids:
                log.note(sequence_id, 0)
            before = resident_bytes()
            for sequence_id in itertools.chain(ids, ids):
                sequences.forward(sequence_id)
            assert all(unpack(packed)[0] == 2 for packed in log.latest.values())
            assert resident_bytes() - before < 24 << 20

    @pytest.mark.campaign
    def test_ten_thousand_sequences_at_twenty_thousand_digits(self, path: Path) -> None:
        with Log(path, Durability.OS) as log:
            sequences = Sequences(log, cache_bytes=16 << 20)
            before = resident_bytes()
            for _ in range(10_000):
                sequence = sequences.seek(sequences.create(), 95_700)
                assert len(sequence.digits()) == 20_000
            assert sequences.memory.values[0] <= 16 << 20
            assert resident_bytes() - before < 32 << 20
