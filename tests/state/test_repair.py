"""What is saved of a damaged log."""

import random
from pathlib import Path

import pytest

from bigfib.state import files, reader
from bigfib.state.log import Log
from bigfib.state.reader import Unusable
from bigfib.state.repair import repair


@pytest.fixture
def offsets(path: Path) -> list[int]:
    """Make a log of 30 steps of three sequences; return where its records begin, and its end."""
    with Log(path) as log:
        offsets = [log.end]
        for number in range(30):
            offsets.append(log.append(b"%d" % (number % 3), number))
            log.commit(offsets[-1])
    return offsets


def positions(path: Path) -> dict[bytes, int]:
    contents = reader.read(path)
    return {name: contents.position(name) for name in contents.latest}


def test_one_lost_record(path: Path, offsets: list[int]) -> None:
    harmed = bytearray(path.read_bytes())
    harmed[offsets[10] + 4] ^= 1
    path.write_bytes(harmed)
    repaired = repair(path)
    assert path.read_bytes() == harmed
    assert repaired.lost == [(offsets[10], offsets[11])]
    assert (repaired.records, repaired.sequences) == (29, 3)
    assert positions(repaired.target) == {b"0": 27, b"1": 28, b"2": 29}
    with Log(repaired.target) as log:
        assert log.position(b"1") == 28


def test_the_last_record_of_a_sequence_lost(path: Path, offsets: list[int]) -> None:
    harmed = path.read_bytes()
    path.write_bytes(harmed[: offsets[28]] + bytes(5) + harmed[offsets[28] + 5 :])
    repaired = repair(path)
    assert repaired.lost == [(offsets[28], offsets[29])]
    assert positions(repaired.target) == {b"0": 27, b"1": 25, b"2": 29}


def test_every_record_saved_wherever_the_harm_is(path: Path, offsets: list[int]) -> None:
    content = path.read_bytes()
    chance = random.Random(8)
    for _ in range(200):
        at = chance.randrange(offsets[0], len(content))
        end = min(at + chance.randrange(1, 60), len(content))
        path.write_bytes(content[:at] + chance.randbytes(end - at) + content[end:])
        repaired = repair(path)
        whole = [n for n in range(30) if offsets[n + 1] <= at or offsets[n] >= end]
        assert repaired.records >= len(whole)
        expected = {b"%d" % (n % 3): n for n in whole}
        shown = positions(repaired.target)
        assert all(shown[name] >= position for name, position in expected.items())
        repaired.target.unlink()


@pytest.mark.parametrize("at", [0, 3, 8, 12, 19])
def test_a_harmed_header(path: Path, offsets: list[int], at: int) -> None:
    assert offsets
    harmed = bytearray(path.read_bytes())
    harmed[at] ^= 0xFF
    path.write_bytes(harmed)
    with pytest.raises(Unusable):
        Log(path)
    assert positions(repair(path).target) == {b"0": 27, b"1": 28, b"2": 29}


def test_what_is_in_the_way_is_not_overwritten(path: Path, offsets: list[int]) -> None:
    assert offsets
    target = repair(path).target
    target.write_text("mine")
    with pytest.raises(Unusable, match="is in the way"):
        repair(path)
    assert target.read_text() == "mine"


def test_something_else(path: Path) -> None:
    path.write_bytes(random.Random(9).randbytes(100_000))
    with pytest.raises(Unusable, match="no record"):
        repair(path)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name, path.name + ".lock"]


def test_not_while_it_is_written_to(path: Path) -> None:
    with Log(path), pytest.raises(files.Held):
        repair(path)
