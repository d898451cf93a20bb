"""Opening a log: torn tails are cut off, other files are refused."""

from pathlib import Path

import pytest

from bigfib.state import reader, records
from bigfib.state.errors import Unusable
from bigfib.state.log import Log
from tests.state.test_log import positions, store

SHARED = b"shared"


class TestTornTail:
    def test_log_cut_at_any_byte_keeps_the_records_before(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Log(path) as opened:
            ends = [store(opened, SHARED, position) for position in range(1, 31)]
        whole = path.read_bytes()
        assert len(whole) == ends[-1]
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            # The position is the one of the last record that is there to its end.
            expected = sum(end <= length for end in ends)
            assert reader.read(path).position(SHARED) == expected
            assert path.stat().st_size == length, "reading changed the file"
            caplog.clear()
            with Log(path) as opened:
                assert opened.position(SHARED) == expected
                at_an_end = length in (*ends, records.HEADER_SIZE)
                assert bool(caplog.records) == (not at_an_end)
                opened.append(SHARED, 1000)
            assert positions(reader.read(path)) == {SHARED: 1000}

    def test_the_warning_names_file_offset_and_bytes(
        self, path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Log(path) as opened:
            end = store(opened, SHARED, 1)
        with path.open("ab") as file:
            file.write(b"\x20torn")
        Log(path).close()
        assert (
            f"{path} is torn: at offset {end} there is a record of 37 bytes that is cut off;"
            in caplog.text
        )
        assert "cutting off the last 5 bytes" in caplog.text
        assert path.stat().st_size == end

    def test_tail_of_zeros_is_cut_off(self, path: Path) -> None:
        with Log(path) as opened:
            opened.append(SHARED, 1)
        with path.open("ab") as file:
            file.write(bytes(4096))
        assert reader.read(path).fault
        with Log(path) as opened:
            assert positions(opened) == {SHARED: 1}

    def test_records_of_another_log_do_not_count(self, path: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.log"
        for where, position in ((path, 1), (other, 99)):
            with Log(where) as opened:
                opened.append(SHARED, position)
        with path.open("ab") as file:
            file.write(other.read_bytes()[records.HEADER_SIZE :])
        assert positions(reader.read(path)) == {SHARED: 1}

    def test_a_torn_record_is_not_joined_with_the_next(self, path: Path) -> None:
        with Log(path) as opened:
            opened.append(SHARED, 1)
        torn = path.read_bytes()[:-1]
        path.write_bytes(torn)
        with Log(path) as opened:
            opened.append(SHARED, 2)
        contents = reader.read(path)
        assert (positions(contents), contents.records, contents.fault) == ({SHARED: 2}, 1, None)


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
