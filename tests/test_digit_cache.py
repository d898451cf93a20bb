"""The digit cache as a directory of files; in test_large_term_cache.py services use it."""

import errno
import hashlib
import os
import select
import socket
from pathlib import Path

import pytest
from flint import fmpz

from bigfib.digit_cache import DigitCache, holds_term, seal
from bigfib.numbers import kernel

N = 30_000


def digits(n: int) -> str:
    return fmpz.fib_ui(fmpz(n)).str(base=10)


@pytest.fixture
def cache(tmp_path: Path) -> DigitCache:
    return DigitCache(tmp_path / "cache", 20_000)


def names(cache: DigitCache) -> list[str]:
    return sorted(entry.name for entry in cache.directory.iterdir())


class TestStore:
    def test_stored_term_is_found_again(self, cache: DigitCache) -> None:
        stored = cache.store(N, digits(N))
        with cache.open(N) as file:
            assert seal(file) == stored.seal
            assert file.read().decode() == digits(N)
        assert cache.check(N) == stored

    @pytest.mark.parametrize("n", [N, N + 1])
    def test_digests_are_those_of_all_representations(self, cache: DigitCache, n: int) -> None:
        """F(-N) is negative, and F(-N - 1) is not."""
        sign, size = "-" if n == N else "", len(digits(n))
        expected = [
            hashlib.sha256(representation.encode()).digest()
            for index, value in ((n, digits(n)), (-n, sign + digits(n)))
            for representation in (
                value,
                f'{{"n":"{index}","digits":"{size}","value":"{value}"}}',
                f'{{"n":"{index}","digits":"{size}","value":"{value}","base":"10"}}',
            )
        ]
        assert list(cache.store(n, digits(n)).digests) == expected
        kept = cache.check(n)
        assert kept
        assert list(kept.digests) == expected

    @pytest.mark.parametrize("wrong", [digits(N - 1), digits(N)[:-1], digits(N)[:-1] + "7", ""])
    def test_wrong_digits_are_not_stored(self, cache: DigitCache, wrong: str) -> None:
        with pytest.raises(ValueError, match=rf"is not F\({N}\)"):
            cache.store(N, wrong)
        assert names(cache) == []

    def test_a_stale_part_of_the_same_pid_is_replaced(self, cache: DigitCache) -> None:
        part = cache.part(N, os.getpid())
        part.parent.mkdir()
        part.write_text("1")
        part.chmod(0o444)
        assert cache.store(N, digits(N)) == cache.check(N)
        assert names(cache) == [f"{N}.digits"]

    def test_stored_term_replaces_another_that_is_still_read(self, cache: DigitCache) -> None:
        first = cache.store(N, digits(N))
        with cache.open(N) as file:
            second = cache.store(N, digits(N))
            assert first != second
            # A reader of the first file can go on reading it.
            assert file.read().decode() == digits(N)
        assert names(cache) == [f"{N}.digits"]

    def test_full_cache_drops_the_least_recently_used(self, cache: DigitCache) -> None:
        """There is room for three terms of 6,270 digits."""
        for n in (N, N + 1, N + 2):
            cache.store(n, digits(n))
        with cache.open(N) as file:
            before = seal(file)
            cache.note_use(file)
            assert seal(file) == before
        cache.store(N + 3, digits(N + 3))
        assert names(cache) == [f"{n}.digits" for n in (N, N + 2, N + 3)]

    def test_others_are_dropped_when_the_disk_is_full(
        self, cache: DigitCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache.store(N, digits(N))
        (cache.directory / "7.digits").mkdir()
        os.utime(cache.directory / "7.digits", (0, 0))
        rename = Path.rename

        def while_another_is_there(self: Path, target: Path) -> Path:
            if (cache.directory / f"{N}.digits").exists():
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return rename(self, target)

        monkeypatch.setattr(Path, "rename", while_another_is_there)
        cache.store(N + 1, digits(N + 1))
        assert names(cache) == [f"{N + 1}.digits", "7.digits"]

    def test_term_without_room_on_the_disk_is_an_error(
        self, cache: DigitCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        cache.store(N, digits(N))
        monkeypatch.setattr(Path, "rename", full)
        with pytest.raises(OSError, match="No space left"):
            cache.store(N + 1, digits(N + 1))
        # The file that was there had to be deleted first.
        assert names(cache) == []


class TestCheck:
    def test_check_of_a_missing_term_returns_none(self, cache: DigitCache) -> None:
        assert cache.check(N) is None

    def test_any_wrong_digit_is_found_and_removed(self, cache: DigitCache) -> None:
        right = digits(N).encode()
        for place in range(0, len(right), 97):
            for digit in range(10):
                harmed = right[:place] + b"%d" % digit + right[place + 1 :]
                path = cache.directory / f"{N}.digits"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(harmed)
                found = cache.check(N)
                assert (found is not None) == (harmed == right)
                assert path.exists() == (harmed == right)

    @pytest.mark.parametrize("harm", ["loop", "socket", "fifo", "unreadable"])
    def test_entry_that_is_no_file_is_replaced(self, cache: DigitCache, harm: str) -> None:
        path = cache.directory / f"{N}.digits"
        path.parent.mkdir()
        if harm == "loop":
            path.symlink_to(path)
        elif harm == "socket":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(os.path.relpath(path))
        elif harm == "fifo":
            os.mkfifo(path)
        else:
            path.touch(mode=0)
        assert cache.check(N) is None
        assert cache.store(N, digits(N)) == cache.check(N)

    def test_directory_in_place_of_a_term_is_left_alone(self, cache: DigitCache) -> None:
        (cache.directory / f"{N}.digits").mkdir(parents=True)
        before = len(list(Path("/proc/self/fd").iterdir()))
        assert cache.check(N) is None
        with pytest.raises(IsADirectoryError):
            cache.store(N, digits(N))
        assert len(list(Path("/proc/self/fd").iterdir())) == before


class TestLock:
    def test_others_wait_for_the_same_term_only(self, cache: DigitCache) -> None:
        reader, writer = os.pipe()
        with cache.lock(N):
            child = os.fork()
            if child == 0:
                try:
                    cache.lock(N + 1)
                    os.write(writer, b"other")
                    cache.lock(N)
                    os.write(writer, b"same")
                finally:
                    os._exit(0)
            assert os.read(reader, 10) == b"other"
            assert select.select([reader], [], [], 0.2)[0] == []
        assert os.read(reader, 10) == b"same"
        os.waitpid(child, 0)
        assert names(cache) == ["lock"]


@pytest.mark.parametrize("n", [1, 2, 3, 10, 4_900, 4_904, 4_905, 9_804, 352_780, 352_785, 705_570])
@pytest.mark.parametrize("by_kernel", [True, False])
def test_only_the_digits_of_a_term_are_held_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, by_kernel: bool
) -> None:
    """Terms about as long as the pieces in which they are checked."""
    if by_kernel and kernel.load() is None:
        pytest.skip(kernel.description())
    if not by_kernel:
        monkeypatch.setattr(kernel, "load", lambda: None)
    right = digits(n).encode()
    middle = len(right) // 2
    other = b"%d" % ((right[middle] - 47) % 10)
    path = tmp_path / "term"
    for written in (
        right,
        right + b"0",
        right[:middle] + other + right[middle + 1 :],
        right[:-1] + b"/",
    ):
        path.write_bytes(written)
        with path.open("rb") as file:
            assert holds_term(file, n) == (written == right)
