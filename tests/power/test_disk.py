"""The model of a disk: what is certain after a power cut, and what is possible."""

import random
import stat
from collections.abc import Callable

import pytest

from tests.power.disk import PAGE, SECTOR, Disk, Inode, Truncate, surviving_data

FILE = stat.S_IFREG | 0o600
CUTS = 300


def outcomes(prepare: Callable[[Disk], None], look: Callable[[Disk], object]) -> set[object]:
    """Return the results of power cuts that differ only by chance."""
    found = set()
    for seed in range(CUTS):
        disk = Disk()
        prepare(disk)
        disk.cut_power(random.Random(seed))
        found.add(look(disk))
    return found


def names(disk: Disk) -> tuple[str, ...]:
    return tuple(sorted(disk.root.entries))


def content(disk: Disk) -> bytes | None:
    file = disk.root.entries.get("a")
    return bytes(file.content) if file else None


def durable(disk: Disk, name: str, data: bytes) -> Inode:
    file = disk.create(name, FILE)
    disk.write(file, data, 0)
    file.sync()
    disk.sync_names(disk.root)
    return file


class TestNames:
    def test_synced_directory_keeps_its_names(self) -> None:
        def prepare(disk: Disk) -> None:
            durable(disk, "a", b"x")

        assert outcomes(prepare, names) == {("a",)}

    def test_file_that_was_synced_without_its_directory_may_have_no_name(self) -> None:
        def prepare(disk: Disk) -> None:
            disk.create("a", FILE).sync()

        assert outcomes(prepare, names) == {("a",), ()}

    def test_rename_is_there_or_not_and_never_half(self) -> None:
        def prepare(disk: Disk) -> None:
            durable(disk, "a", b"old")
            durable(disk, "a.new", b"new")
            disk.rename("a.new", "a")

        def look(disk: Disk) -> object:
            return names(disk), content(disk)

        assert outcomes(prepare, look) == {(("a", "a.new"), b"old"), (("a",), b"new")}

    def test_rename_may_be_there_without_the_data(self) -> None:
        def prepare(disk: Disk) -> None:
            durable(disk, "a", b"old")
            disk.write(disk.create("a.new", FILE), b"new", 0)
            disk.rename("a.new", "a")

        assert outcomes(prepare, content) == {b"old", b"new", b"", bytes(3)}

    def test_deletion_may_be_undone(self) -> None:
        def prepare(disk: Disk) -> None:
            durable(disk, "a", b"x")
            disk.unlink("a")

        assert outcomes(prepare, names) == {("a",), ()}

    def test_names_in_a_directory_that_is_lost_are_lost(self) -> None:
        def prepare(disk: Disk) -> None:
            directory = disk.create("d", stat.S_IFDIR | 0o700)
            disk.create("d/a", FILE)
            disk.sync_names(directory)

        def look(disk: Disk) -> object:
            return [list(one.entries) for one in disk.root.entries.values()] == [["a"]]

        assert outcomes(prepare, look) == {True, False}
        assert outcomes(prepare, names) == {("d",), ()}


class TestData:
    def test_synced_data_survives_a_power_cut(self) -> None:
        def prepare(disk: Disk) -> None:
            durable(disk, "a", b"x" * 5000)

        assert outcomes(prepare, content) == {b"x" * 5000}

    def test_appending_harms_no_earlier_byte(self) -> None:
        def prepare(disk: Disk) -> None:
            file = durable(disk, "a", b"x" * 700)
            for number in range(9):
                disk.write(file, b"y" * 300, 700 + 300 * number)

        for found in outcomes(prepare, content):
            assert isinstance(found, bytes)
            assert found[:700] == b"x" * 700

    def test_without_powersafe_overwrite_only_what_was_being_written_is_harmed(self) -> None:
        pages = {SECTOR: 0, PAGE: 0}
        for seed in range(CUTS):
            disk = Disk()
            file = durable(disk, "a", b"x" * (3 * PAGE - 100))
            disk.write(file, b"y", 3 * PAGE - 100)
            disk.cut_power(random.Random(seed), powersafe=False)
            found = bytes(file.content)
            assert found[: 2 * PAGE] == b"x" * 2 * PAGE
            for unit in pages:
                end = (3 * PAGE - 100) // unit * unit
                pages[unit] += found[:end] == b"x" * end and found[end:].count(b"x") < unit // 9
        assert 0 < pages[PAGE] < pages[SECTOR] < CUTS

    def test_sectors_and_pages_survive_each_by_itself(self) -> None:
        def prepare(disk: Disk) -> None:
            file = durable(disk, "a", b"x" * 3 * PAGE)
            disk.write(file, b"y" * 3 * PAGE, 0)

        found = outcomes(prepare, content)
        assert {b"x" * 3 * PAGE, b"y" * 3 * PAGE} < found
        whole_pages = 0
        for one in found:
            assert isinstance(one, bytes)
            sectors = [set(one[at : at + SECTOR]) for at in range(0, len(one), SECTOR)]
            assert {len(each) for each in sectors} == {1}
            whole_pages += all(
                len(set(one[at : at + PAGE])) == 1 for at in range(0, len(one), PAGE)
            )
        assert 2 < whole_pages < len(found)

    def test_later_write_may_be_there_without_an_earlier_one(self) -> None:
        def prepare(disk: Disk) -> None:
            file = durable(disk, "a", b"")
            disk.write(file, b"1" * SECTOR, 0)
            disk.write(file, b"2" * SECTOR, SECTOR)

        found = outcomes(prepare, content)
        assert {bytes(SECTOR) + b"2" * SECTOR, b"1" * SECTOR, b"1" * SECTOR + b"2" * SECTOR} < found

    def test_truncation_may_be_undone(self) -> None:
        def prepare(disk: Disk) -> None:
            durable(disk, "a", b"x" * 2 * SECTOR).change(Truncate(SECTOR))

        found = outcomes(prepare, content)
        assert {b"x" * SECTOR, b"x" * 2 * SECTOR} <= found

    def test_blocks_never_written_may_show_what_was_deleted(self) -> None:
        file = Inode(1, FILE)
        file.change(Truncate(SECTOR))
        found = {surviving_data(file, random.Random(seed), b"old" * 999) for seed in range(CUTS)}
        assert found == {b"", bytes(SECTOR), (b"old" * 999)[:SECTOR]}


class TestRoom:
    def test_full_disk_takes_what_there_is_room_for_and_then_nothing(self) -> None:
        disk = Disk()
        file = disk.create("a", FILE)
        disk.capacity = 10
        assert disk.write(file, b"x" * 6, 0) == 6
        assert disk.write(file, b"y" * 6, 6) == 4
        with pytest.raises(OSError, match="full"):
            disk.write(file, b"z", 10)
        assert bytes(file.content) == b"xxxxxxyyyy"

    def test_reserved_room_is_kept_for_its_file(self) -> None:
        disk = Disk()
        one, other = disk.create("a", FILE), disk.create("b", FILE)
        disk.capacity = 10
        disk.reserve(one, 8)
        assert disk.write(other, b"x" * 6, 0) == 2
        with pytest.raises(OSError, match="full"):
            disk.reserve(other, 3)
        assert disk.write(one, b"x" * 9, 0) == 8
