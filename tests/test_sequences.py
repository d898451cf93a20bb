"""Sequences over a real log."""

from pathlib import Path

import pytest

from bigfib.numbers.decimals import StartOfSequence
from bigfib.sequences import MOST_LOADED, SHARED, Sequences
from bigfib.state.log import Durability, Log


def test_steps_are_in_the_log(path: Path) -> None:
    with Log(path) as log:
        sequences = Sequences(log)
        for _ in range(10):
            sequence = sequences.forward(SHARED)
        assert sequence.pair.digits() == b"55"
        assert sequences.back(SHARED).pair.digits() == b"34"
        assert log.position(SHARED) == 9
    with Log(path) as log:
        assert Sequences(log).current(SHARED).pair.digits() == b"34"


def test_a_step_waits_for_its_own_record(path: Path) -> None:
    with Log(path) as log:
        sequences = Sequences(log)
        first = sequences.forward(b"a").lsn
        second = sequences.forward(b"b").lsn
        assert first < second == log.end
        assert sequences.current(b"a").lsn == first


def test_the_start_is_left_alone(path: Path) -> None:
    with Log(path) as log:
        sequences = Sequences(log)
        end = log.end
        with pytest.raises(StartOfSequence):
            sequences.back(SHARED)
        assert log.end == end
        assert sequences.current(SHARED).pair.position == 0


def test_a_sequence_that_left_memory_comes_back_where_it_stood(path: Path) -> None:
    with Log(path, Durability.OS) as log:
        sequences = Sequences(log)
        for number in range(2 * MOST_LOADED):
            sequences.forward(b"%d" % number)
        for number in range(2 * MOST_LOADED):
            assert sequences.forward(b"%d" % number).pair.position == 2


def test_one_that_came_back_is_not_shown_before_it_is_durable(path: Path) -> None:
    with Log(path) as log:
        sequences = Sequences(log)
        stepped = sequences.forward(SHARED).lsn
        for number in range(MOST_LOADED):
            sequences.current(b"%d" % number)
        assert log.committed < stepped <= sequences.current(SHARED).lsn
