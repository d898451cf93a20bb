"""Opening a log: every case of the table in `bigfib.state.recovery`."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigfib.state import floor, header, reader
from bigfib.state.errors import Damaged, LogError, Unreadable, Unusable
from bigfib.state.floor import Floor
from bigfib.state.log import Durability, Log
from bigfib.state.recovery import CASES, Case, Decision
from bigfib.state.store import Place, PositionMismatch
from tests.state.test_log import positions, store

SHARED = b"shared"
OTHER_BOOT = b"o" * 16
OLD = Path(__file__).parent / "old.log"
"""A log of format version 1: three steps of the shared sequence, synced one by one."""


def make(path: Path, count: int = 5, durability: Durability = Durability.FSYNC) -> list[int]:
    """Create a log of this many steps, and return its end after each commit."""
    with Log(path, durability) as log:
        return [store(log, SHARED, position) for position in range(1, count + 1)]


def harm(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def set_floor(path: Path, **fields: Any) -> None:
    """Change fields of the log's floor."""
    found = floor.read(path)
    assert found
    floor.path_of(path).write_bytes(floor.encode(found._replace(**fields)))


def remove_floor(path: Path) -> None:
    floor.path_of(path).unlink()


def no_file(path: Path) -> int:
    assert not path.exists()
    return 0


def no_file_but_an_empty_floor(path: Path) -> int:
    Log(path).close()
    path.unlink()
    return 0


def gone(path: Path) -> int:
    make(path)
    path.unlink()
    return -1


def another_version(path: Path) -> int:
    path.write_bytes(b"\x89bigfib\n\x09\x00" + bytes(12))
    return -1


def another_file(path: Path) -> int:
    path.write_bytes(b"root:x:0:0:root:/root:/bin/bash\n")
    return -1


def harmed_header(path: Path) -> int:
    make(path)
    harm(path, 12)
    return -1


def half_a_header(path: Path) -> int:
    make(path)
    os.truncate(path, header.SIZE // 2)
    return -1


def empty_file(path: Path) -> int:
    path.touch()
    return -1


def older_copy_from_before_a_rewriting(path: Path) -> int:
    make(path)
    copy = path.read_bytes()
    for _ in range(2):
        with Log(path) as log:
            log.compact()
    path.write_bytes(copy)
    return -1


def harmed_below_the_floor(path: Path) -> int:
    ends = make(path)
    # In the last record, which no later one proves to be synced.
    harm(path, ends[-2] + 3)
    return -1


def zeroed_below_the_floor(path: Path) -> int:
    make(path)
    content = path.read_bytes()
    path.write_bytes(content[: header.SIZE] + bytes(len(content) - header.SIZE))
    return -1


def older_copy(path: Path) -> int:
    make(path)
    copy = path.read_bytes()
    make(path)
    path.write_bytes(copy)
    return -1


def cut_at_a_record(path: Path) -> int:
    os.truncate(path, make(path)[2])
    return -1


def cut_in_the_same_boot(path: Path) -> int:
    os.truncate(path, make(path, durability=Durability.OS)[2])
    return -1


def harmed_below_a_later_durable_offset(path: Path) -> int:
    ends = make(path)
    harm(path, ends[1] + 3)
    remove_floor(path)
    return -1


def torn_in_another_boot(path: Path) -> int:
    ends = make(path, durability=Durability.OS)
    set_floor(path, boot=OTHER_BOOT)
    os.truncate(path, ends[-1] - 1)
    return 4


def cut_in_another_boot(path: Path) -> int:
    ends = make(path, durability=Durability.OS)
    set_floor(path, boot=OTHER_BOOT)
    os.truncate(path, ends[2])
    return 3


def harmed_with_records_behind(path: Path) -> int:
    ends = make(path, durability=Durability.OS)
    remove_floor(path)
    harm(path, ends[2] + 3)
    return 3


def torn(path: Path) -> int:
    ends = make(path)
    set_floor(path, durable=ends[-2], written=ends[-2])
    os.truncate(path, ends[-1] - 1)
    return 4


def torn_zeros(path: Path) -> int:
    make(path)
    with path.open("ab") as file:
        file.write(bytes(4096))
    return 5


def harmed_floor(path: Path) -> int:
    make(path)
    harm(floor.path_of(path), 20)
    return 5


def rewritten_by_an_older_program(path: Path) -> int:
    make(path)
    path.write_bytes(OLD.read_bytes())
    return 3


def without_a_floor(path: Path) -> int:
    make(path)
    remove_floor(path)
    return 5


def of_the_old_format(path: Path) -> int:
    path.write_bytes(OLD.read_bytes())
    return 3


def killed_between_renaming_and_floor(path: Path) -> int:
    make(path)
    before = floor.path_of(path).read_bytes()
    with Log(path) as log:
        log.compact()
    floor.path_of(path).write_bytes(before)
    return 5


def whole(path: Path) -> int:
    make(path)
    return 5


def whole_with_an_older_floor(path: Path) -> int:
    ends = make(path)
    set_floor(path, durable=ends[1], written=ends[1])
    return 5


MADE: list[tuple[str, Callable[[Path], int]]] = [
    ("no file, and no floor of a log with records", no_file),
    ("no file, and no floor of a log with records", no_file_but_an_empty_floor),
    ("no file, but the floor of a log with records", gone),
    ("another format version", another_version),
    ("another file, or a harmed header", another_file),
    ("another file, or a harmed header", harmed_header),
    ("a header cut short, or an empty file", half_a_header),
    ("a header cut short, or an empty file", empty_file),
    ("the floor of another log", older_copy_from_before_a_rewriting),
    ("harmed below the floor", harmed_below_the_floor),
    ("harmed below the floor", zeroed_below_the_floor),
    ("ends below the floor: an older copy, or cut at a record", older_copy),
    ("ends below the floor: an older copy, or cut at a record", cut_at_a_record),
    ("ends below the floor: an older copy, or cut at a record", cut_in_the_same_boot),
    (
        "a fault where a later record proves that the log was synced",
        harmed_below_a_later_durable_offset,
    ),
    (
        "a fault below what `--durability os` wrote before the machine was restarted",
        torn_in_another_boot,
    ),
    (
        "ends below what `--durability os` wrote before the machine was restarted",
        cut_in_another_boot,
    ),
    ("a fault, with valid records after it", harmed_with_records_behind),
    ("a torn end", torn),
    ("a torn end", torn_zeros),
    ("whole, with a floor that cannot be read", harmed_floor),
    ("whole, without a floor", without_a_floor),
    ("whole, without a floor", of_the_old_format),
    ("whole, of the old format, with the floor of another log", rewritten_by_an_older_program),
    (
        "whole, with the floor of the log that it replaced, or of one without records",
        killed_between_renaming_and_floor,
    ),
    ("whole, with its floor", whole),
    ("whole, with its floor", whole_with_an_older_floor),
]


@pytest.mark.parametrize(
    ("name", "prepare"), MADE, ids=lambda value: getattr(value, "__name__", "")
)
def test_each_case_is_met_by_the_decision_of_its_row(
    path: Path, caplog: pytest.LogCaptureFixture, name: str, prepare: Callable[[Path], int]
) -> None:
    expected = prepare(path)
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    (case,) = [each for each in CASES if each.name == name]
    found = reader.inspect(path)
    assert found.case is case
    if case.decision in (Decision.REFUSE, Decision.REPAIR):
        check_refused(path, case)
        left = {
            each.name: each.read_bytes() for each in path.parent.iterdir() if each.suffix != ".lock"
        }
        assert left == {name: content for name, content in before.items() if ".lock" not in name}
        return
    assert expected >= 0
    assert reader.read(path).position(SHARED) == expected
    with Log(path) as log:
        assert log.position(SHARED) == expected
        warned = "".join(record.getMessage() for record in caplog.records)
        assert warned.startswith(f"state log {path}: " if case.says else "")
        assert bool(warned) == bool(case.says)
        if case.decision is Decision.CUT:
            kept = path.with_name("state.log.torn.1")
            assert str(kept) in warned
            assert path.read_bytes() + kept.read_bytes() == before[path.name]
        store(log, SHARED, 1000)
    assert reader.inspect(path).case.name == "whole, with its floor"
    assert positions(reader.read(path)) == {SHARED: 1000}


def check_refused(path: Path, case: Case) -> None:
    error: type[LogError] = Damaged if case.decision is Decision.REPAIR else Unusable
    for use in (reader.read, Log):
        with pytest.raises(error, match=re.escape(str(path))):
            use(path)


def test_every_row_of_the_table_is_made_and_documented() -> None:
    # test_repair.py has the case of bytes that the disk cannot read.
    assert [case.name for case in CASES] == sorted(
        {name for name, _ in MADE} | {"bytes that the disk cannot read"},
        key=[case.name for case in CASES].index,
    )
    page = (Path(__file__).parents[2] / "docs" / "durability.md").read_text()
    rows = [
        tuple(cell.strip() for cell in line.strip("| ").split(" | "))
        for line in page.splitlines()
        if line.startswith("| ")
    ]
    assert [row for row in rows if row[0] in {case.name for case in CASES}] == [
        (case.name, case.decision.value, case.reason) for case in CASES
    ]


def test_refused_older_copy_opens_without_the_floor(path: Path) -> None:
    """This is the documented way to restore an older copy on purpose."""
    older_copy(path)
    with pytest.raises(Damaged, match=f"if it was put there on purpose, remove {path}.floor"):
        Log(path)
    remove_floor(path)
    with Log(path) as log:
        assert log.position(SHARED) == 5


def test_unreadable_log_is_refused_as_the_table_says(path: Path) -> None:
    problem = Unreadable(path, OSError(5, "Input/output error"))
    found = reader.Contents(size=100, problem=problem)
    assert found.case.name == "bytes that the disk cannot read"
    with pytest.raises(Unreadable, match="Input/output error"):
        found.refuse(path)


class TestTornEnd:
    def test_log_cut_at_any_byte_without_floor_keeps_the_records_before(self, path: Path) -> None:
        with Log(path, Durability.OS) as opened:
            ends = [store(opened, SHARED, position) for position in range(1, 11)]
        whole = path.read_bytes()
        assert len(whole) == ends[-1]
        for length in range(header.SIZE, len(whole)):
            path.write_bytes(whole[:length])
            floor.path_of(path).unlink(missing_ok=True)
            # The position is that of the last complete record.
            expected = sum(end <= length for end in ends)
            assert reader.read(path).position(SHARED) == expected
            assert path.stat().st_size == length, "reading changed the file"
            with Log(path) as opened:
                assert opened.position(SHARED) == expected
                opened.note(SHARED, 1000)
            assert positions(reader.read(path)) == {SHARED: 1000}

    def test_the_warning_names_file_offset_and_where_the_end_is_kept(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        end = make(path)[-1]
        with path.open("ab") as file:
            file.write(b"\x20torn")
        Log(path).close()
        assert caplog.messages == [
            f"state log {path}: at offset {end} there is a record of 37 bytes that is cut off; "
            f"the bytes from there on are cut off, and kept in {path}.torn.1"
        ]
        assert path.stat().st_size == end
        assert Path(f"{path}.torn.1").read_bytes() == b"\x20torn"
        assert Path(f"{path}.torn.1").stat().st_mode & 0o777 == 0o600

    def test_the_last_three_ends_are_kept(self, path: Path) -> None:
        make(path)
        for number in range(12):
            with path.open("ab") as file:
                file.write(b"\x20torn %d" % number)
            Log(path).close()
        kept = {each.name: each.read_bytes() for each in path.parent.glob("*.torn.*")}
        assert kept == {f"state.log.torn.{n + 1}": b"\x20torn %d" % n for n in (9, 10, 11)}

    def test_hole_at_the_end_takes_no_room(self, path: Path) -> None:
        end = make(path)[-1]
        with path.open("ab") as file:
            file.write(b"\x20torn")
        os.truncate(path, end + (1 << 30))
        Log(path).close()
        kept = Path(f"{path}.torn.1").stat()
        assert kept.st_size == 1 << 30
        assert kept.st_blocks * 512 < 1 << 20

    def test_records_of_another_log_do_not_count(self, path: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.log"
        for where, position in ((path, 1), (other, 99)):
            with Log(where) as opened:
                opened.note(SHARED, position)
        with path.open("ab") as file:
            file.write(other.read_bytes()[header.SIZE :])
        assert positions(reader.read(path)) == {SHARED: 1}

    def test_a_torn_record_is_not_joined_with_the_next(self, path: Path) -> None:
        make(path, 1)
        remove_floor(path)
        path.write_bytes(path.read_bytes()[:-1])
        with Log(path) as opened:
            opened.note(SHARED, 2)
        contents = reader.read(path)
        assert (positions(contents), contents.records, contents.fault) == ({SHARED: 2}, 1, None)


class TestFloor:
    def test_floor_is_that_of_the_last_commit_without_a_close(self, path: Path) -> None:
        log = Log(path)
        for position in range(1, 4):
            end = store(log, SHARED, position)
            found = floor.read(path)
            assert found
            assert (found.durable, found.written) == (end, end)
        log.close()

    def test_floor_with_os_durability_says_what_is_durable_and_what_is_written(
        self, path: Path
    ) -> None:
        with Log(path, Durability.OS) as log:
            end = store(log, SHARED, 1)
            found = floor.read(path)
            assert found
            assert (found.durable, found.written, found.boot) == (header.SIZE, end, floor.boot())
        with Log(path, Durability.OS):
            found = floor.read(path)
            assert found
            assert (found.durable, found.written) == (end, end), "it was synced when it was opened"

    def test_no_bit_of_a_floor_can_flip(self) -> None:
        encoded = floor.encode(Floor(7, 22, 100, OTHER_BOOT))
        assert len(encoded) == 48
        for bit in range(8 * len(encoded)):
            flipped = bytearray(encoded)
            flipped[bit // 8] ^= 1 << bit % 8
            with pytest.raises(floor.HarmedFloor):
                floor.decode(bytes(flipped))

    def test_floor_that_cannot_be_written_is_reported_and_the_commit_succeeds(
        self, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Log(path) as log:
            store(log, SHARED, 1)
            real = os.pwrite

            def pwrite(fd: int, data: bytes, offset: int) -> int:
                if len(data) == 48:
                    raise OSError(5, "Input/output error")
                return real(fd, data, offset)

            monkeypatch.setattr(os, "pwrite", pwrite)
            store(log, SHARED, 2)
            assert f"{path}.floor cannot be written: Input/output error" in caplog.text
        assert reader.read(path).position(SHARED) == 2


class TestOldFormat:
    def test_log_of_the_old_format_goes_on_and_is_carried_over_by_a_rewriting(
        self, path: Path
    ) -> None:
        path.write_bytes(OLD.read_bytes())
        with Log(path) as log:
            assert (log.position(SHARED), log.version(SHARED)) == (3, None)
            for position in (4, 5):
                log.note(SHARED, position)
            log.commit()
            with pytest.raises(PositionMismatch):
                log.put(SHARED, 6, Place(5, 5))
        # An older program still reads it, and each change has its record, which is counted.
        assert path.read_bytes().startswith(OLD.read_bytes())
        with path.open("rb") as file:
            assert [each.position for _, each in reader.Reader(file)] == [1, 2, 3, 4, 5]
        with Log(path) as log:
            log.compact()
            assert log.version(SHARED) == 5
            store(log, SHARED, 6)
        assert path.read_bytes()[8:10] == b"\x02\x00"
        with Log(path) as log:
            assert (log.position(SHARED), log.version(SHARED)) == (6, 6)


class TestUnusable:
    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            (b"root:x:0:0:root:/root:/bin/bash\n", "magic bytes"),
            (b"\x00" * 16, "magic bytes"),  # the state of the service that bigfib replaces
            (b"\x89bigfib\n\x09\x00", "version 9"),
            (b"\x89bigfib\n\x01\x00saltsaltbad!", "checksum of its header"),
        ],
    )
    def test_another_file_is_refused_and_left_alone(
        self, path: Path, content: bytes, reason: str
    ) -> None:
        path.write_bytes(content)
        for use in (Log, reader.read):
            with pytest.raises(Unusable, match=f"{path}.*{reason}"):
                use(path)
        assert path.read_bytes() == content
        assert [entry.name for entry in path.parent.iterdir()] == [path.name]

    def test_directory_is_refused(self, tmp_path: Path) -> None:
        for use in (Log, reader.read):
            with pytest.raises(Unusable, match="Is a directory"):
                use(tmp_path)

    def test_path_below_a_file_is_refused(self, path: Path) -> None:
        path.touch()
        for use in (Log, reader.read):
            with pytest.raises(Unusable, match="Not a directory"):
                use(path / "state.log")

    def test_reading_a_missing_log_creates_nothing(self, path: Path) -> None:
        assert positions(reader.read(path)) == {}
        assert not path.exists()
