"""The digit cache as a directory of files; services use it in tests/api/test_far_terms.py."""

import errno
import io
import os
from pathlib import Path

import pytest
from flint import fmpz

from bigfib.digit_cache import DigitCache, holds_term, seal

N = 30_000


def digits(n: int) -> str:
    return fmpz.fib_ui(fmpz(n)).str(base=10)


@pytest.fixture
def cache(tmp_path: Path) -> DigitCache:
    return DigitCache(tmp_path / "cache", 20_000)


def names(cache: DigitCache) -> list[str]:
    return sorted(entry.name for entry in cache.directory.iterdir())


class TestStore:
    def test_is_found_again(self, cache: DigitCache) -> None:
        stored = cache.store(N, digits(N))
        with cache.open(N) as file:
            assert seal(file) == stored
            assert file.read().decode() == digits(N)
        assert cache.check(N) == stored

    @pytest.mark.parametrize("wrong", [digits(N - 1), digits(N)[:-1], digits(N)[:-1] + "7", ""])
    def test_what_is_wrong_gets_no_name(self, cache: DigitCache, wrong: str) -> None:
        with pytest.raises(ValueError, match=rf"is not F\({N}\)"):
            cache.store(N, wrong)
        assert names(cache) == []

    def test_takes_the_place_of_another(self, cache: DigitCache) -> None:
        first = cache.store(N, digits(N))
        with cache.open(N) as file:
            second = cache.store(N, digits(N))
            assert first != second
            # Whoever reads the first goes on reading it.
            assert file.read().decode() == digits(N)
        assert names(cache) == [f"{N}.digits"]

    def test_least_recently_used_go_first(self, cache: DigitCache) -> None:
        """Three of 6,270 digits have room."""
        for n in (N, N + 1, N + 2):
            cache.store(n, digits(n))
        with cache.open(N) as file:
            before = seal(file)
            cache.note_use(file)
            assert seal(file) == before
        cache.store(N + 3, digits(N + 3))
        assert names(cache) == [f"{n}.digits" for n in (N, N + 2, N + 3)]

    def test_no_room_on_the_disk(self, cache: DigitCache, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        cache.store(N, digits(N))
        monkeypatch.setattr(Path, "rename", full)
        with pytest.raises(OSError, match="No space left"):
            cache.store(N + 1, digits(N + 1))
        assert names(cache) == [f"{N}.digits"]


class TestCheck:
    def test_there_is_none(self, cache: DigitCache) -> None:
        assert cache.check(N) is None

    def test_each_digit_counts(self, cache: DigitCache) -> None:
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

    def test_it_cannot_be_read(self, cache: DigitCache) -> None:
        (cache.directory / f"{N}.digits").mkdir(parents=True)
        with pytest.raises(IsADirectoryError):
            cache.check(N)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 4_900, 4_904, 4_905, 4_909, 9_804])
def test_terms_about_as_long_as_a_piece(tmp_path: Path, n: int) -> None:
    path = tmp_path / "term"
    for changed in (b"", b"0"):
        path.write_bytes(digits(n).encode() + changed)
        with path.open("rb") as file:
            assert isinstance(file, io.BufferedReader)
            assert holds_term(file, n) == (not changed)
