"""What can be saved of a damaged log."""

import io
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bigfib.state import files, reader, records
from bigfib.state.errors import Unusable
from bigfib.state.log import Durability, Log
from bigfib.state.repair import repair
from tests.state.test_log import store


@pytest.fixture
def offsets(path: Path) -> list[int]:
    """Create a log of 30 steps of three sequences; return the offsets of its records and end."""
    with Log(path) as log:
        offsets = [log.size]
        for number in range(30):
            offsets.append(store(log, b"%d" % (number % 3), number))
    return offsets


def positions(path: Path) -> dict[bytes, int]:
    contents = reader.read(path)
    return {name: contents.position(name) for name in contents.latest}


def test_repair_of_one_harmed_record_keeps_all_others(path: Path, offsets: list[int]) -> None:
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
def test_repair_of_a_harmed_header_keeps_every_record(
    path: Path, offsets: list[int], at: int
) -> None:
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
    with pytest.raises(FileExistsError, match="is in the way"):
        repair(path)
    assert target.read_text() == "mine"


def test_file_without_records_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(random.Random(9).randbytes(100_000))
    with pytest.raises(Unusable, match="no record"):
        repair(path)
    assert {entry.name for entry in path.parent.iterdir()} == {path.name, path.name + ".lock"}


def test_log_that_a_process_writes_is_not_repaired(path: Path) -> None:
    with Log(path), pytest.raises(files.Held):
        repair(path)


class TestThroughALink:
    @pytest.fixture
    def link(self, path: Path, tmp_path: Path) -> Path:
        link = tmp_path / "elsewhere" / "link.log"
        link.parent.mkdir()
        link.symlink_to(path)
        return link

    def test_the_repaired_log_lies_beside_the_log(
        self, path: Path, offsets: list[int], link: Path
    ) -> None:
        harmed = bytearray(path.read_bytes())
        harmed[offsets[10] + 4] ^= 1
        path.write_bytes(harmed)
        repaired = repair(link)
        assert (repaired.source, repaired.target) == (path, path.with_name("state.log.repaired"))
        assert repaired.records == 29
        assert list(link.parent.iterdir()) == [link]

    def test_not_while_the_log_is_written_to(self, path: Path, link: Path) -> None:
        with Log(path), pytest.raises(files.Held):
            repair(link)

    def test_not_while_the_log_is_written_to_under_another_name(
        self, path: Path, tmp_path: Path
    ) -> None:
        with Log(path) as log:
            log.note(b"a", 1)
            other = tmp_path / "other.log"
            other.hardlink_to(path)
            with pytest.raises(files.Held):
                repair(other)


def test_search_finds_records_of_any_size_across_pieces() -> None:
    """In noise, and around bytes that only look like the beginning of a long record."""
    noise = random.Random(12)
    # The lengths of a record of a megabyte are consistent, but its other bytes are wrong.
    liar = records.encode(b"a", 1 << 8 * 1_000_000, 1, records.stamp(22, 1), 0, 7)[:20]
    buffer = bytearray()
    expected = []
    for number in range(300):
        buffer += noise.randbytes(noise.randrange(20_000)) + (b"", liar)[number % 2]
        # Up to 3 MB: longer than a piece.
        size = noise.choice([0, 1, 3, 20, 200, 40_000, 3_000_000 if number % 50 == 0 else 2])
        position = noise.choice([None, (1 << 8 * size) - 1])
        encoded = records.encode(b"%d" % number, position, 1, records.stamp(22, 1), len(buffer), 7)
        expected.append((len(buffer), position, len(buffer) + len(encoded)))
        buffer += encoded
    assert len(buffer) > 5 << 20
    file = io.BytesIO(buffer)
    found = [(start, record.position, end) for start, record, end in reader.search(file, 0, 7)]
    assert found == expected


# The kernel reads up to a bad sector, and fails to read from there on.
BAD_SECTOR = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

ssize_t read(int fd, void *data, size_t size) {
    static ssize_t (*real)(int, void *, size_t);
    if (!real) real = (ssize_t (*)(int, void *, size_t)) dlsym(RTLD_NEXT, "read");
    char name[4096], target[4096];
    name[0] = 0;
    strcat(name, "/proc/self/fd/");
    char digits[16]; int n = 0, rest = fd;
    do digits[n++] = '0' + rest % 10; while (rest /= 10);
    size_t end = strlen(name);
    while (n) name[end++] = digits[--n];
    name[end] = 0;
    ssize_t length = readlink(name, target, sizeof target - 1);
    if (length > 0) {
        target[length] = 0;
        if (!strcmp(target, getenv("BAD_FILE"))) {
            long start = atol(getenv("BAD_START")), at = lseek(fd, 0, SEEK_CUR);
            if (at >= start && at < start + 512) { errno = EIO; return -1; }
            if (at < start && at + (long) size > start) size = start - at;
        }
    }
    return real(fd, data, size);
}
"""


class TestBadSector:
    @pytest.fixture
    def bad(
        self, path: Path, tmp_path: Path, require: Callable[[str], str]
    ) -> Callable[[int], dict[str, str]]:
        """Return the environment of a process that cannot read one sector of the log."""
        source, library = tmp_path / "bad.c", tmp_path / "bad.so"
        source.write_text(BAD_SECTOR)
        subprocess.run([require("cc"), "-shared", "-fPIC", "-o", library, source], check=True)
        return lambda at: {
            **os.environ,
            "LD_PRELOAD": str(library),
            "BAD_FILE": str(path),
            "BAD_START": str(at),
        }

    def run(self, environ: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "bigfib", *arguments],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_repair_saves_what_is_around_it(
        self, path: Path, bad: Callable[[int], dict[str, str]]
    ) -> None:
        with Log(path) as log:
            for number in range(3000):
                log.note(b"%d" % number, number)
        with path.open("rb") as file:
            ends = [offset for offset, _ in reader.Reader(file)] + [path.stat().st_size]
        content = path.read_bytes()
        for start in (512, 20 * 512, ends[-1] // 512 * 512):
            environ = bad(start)
            for command in ("current", "next", "log verify", "log dump"):
                refusal = self.run(environ, *command.split(), "-f", str(path))
                assert refusal.returncode == 1
                assert refusal.stderr == (
                    f"bigfib: state log {path} cannot be read: Input/output error; "
                    f"see what can be saved with `bigfib log repair -f {path}`\n"
                )
            repaired = self.run(environ, "log", "repair", "-f", str(path))
            assert (repaired.returncode, repaired.stderr) == (0, "")
            # The records that have no byte in the sector.
            whole = {
                b"%d" % number: number
                for number in range(3000)
                if ends[number + 1] <= start or ends[number] >= start + 512
            }
            assert 2950 < len(whole) < 3000
            target = path.with_name("state.log.repaired")
            assert positions(target) == whole
            target.unlink()
            assert path.read_bytes() == content


class TestSparseTail:
    """A hole of 3 GB, such as a crash of a file system may leave, is not held in memory."""

    def peak(self, *arguments: str) -> int:
        """Run the command, which must succeed, and return how much memory it took."""
        program = (
            "import re, sys; from bigfib.cli.main import main; status = main(sys.argv[1:]);"
            "print(re.findall(r'VmHWM: *(.*) kB', open('/proc/self/status').read())[0],"
            " file=sys.stderr); sys.exit(status)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        # `log verify` reports a torn end by status 4.
        assert done.returncode in (0, 4), done.stderr
        return int(done.stderr.splitlines()[-1]) << 10

    @pytest.fixture
    def usual(self, path: Path) -> int:
        with Log(path, Durability.OS) as log:
            for position in range(1, 1000):
                store(log, b"shared", position)
        return self.peak("log", "verify", "-f", str(path))

    @pytest.mark.parametrize(
        "torn",
        [
            b"",
            b"\x20torn",
            b"\x80\x80\x80\x80\x08\xb1",
            b"\xf3\xff\xff\xff\x07\xb2\x00\x00\xee\xff\xff\xff\x07",
        ],
    )
    @pytest.mark.parametrize("command", ["log verify", "current", "next", "log compact"])
    def test_long_torn_tail_takes_no_memory(
        self, path: Path, usual: int, command: str, torn: bytes
    ) -> None:
        size = path.stat().st_size
        with path.open("ab") as file:
            file.write(torn)
        os.truncate(path, size + (3 << 30))
        assert self.peak(*command.split(), "-f", str(path)) < usual + (20 << 20)

    def test_repair_of_a_long_hole_takes_no_memory(self, path: Path, usual: int) -> None:
        with Log(path) as log:
            for position in range(1000, 1003):
                log.note(b"shared", position)
                log.commit()
        harmed = bytearray(path.read_bytes())
        harmed[100] ^= 1
        path.write_bytes(harmed)
        os.truncate(path, len(harmed) + (3 << 30))
        assert self.peak("log", "repair", "-f", str(path)) < usual + (20 << 20)
        assert positions(path.with_name("state.log.repaired")) == {b"shared": 1002}
