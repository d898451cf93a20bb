"""Copying every sequence from a state log to a database and back."""

import random
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from bigfib.sequences import SHARED
from bigfib.state import reader
from bigfib.state.errors import Locked
from bigfib.state.log import Log
from bigfib.state.postgres import copy
from bigfib.state.postgres.store import Postgres
from bigfib.state.store import StoreError

DAY = 86_400


def fill(path: Path, count: int) -> dict[bytes, int]:
    """Write a log with sequences of any age at positions of any size; return its content."""
    randomness = random.Random(7)
    day = 19_000
    with Log(path, clock=lambda: day * DAY) as log:
        log.note(SHARED, 12)
        # Python itself writes no number of more than 4,300 digits.
        log.note(b"far", 10**10_000)
        for number in range(count):
            day += number % 97 == 0
            one = randomness.randbytes(16)
            log.create(one, randomness.getrandbits(randomness.choice([1, 16, 64, 300])))
            if number % 1000 == 0:
                log.commit()
        log.note(one, None)
        return dict(log.latest)


def sequences(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT count(*) FROM bigfib_sequences").fetchone()
        assert row
        return int(row[0])


def test_copy_there_and_back_keeps_positions_versions_and_days(path: Path, database: str) -> None:
    latest = fill(path, 30_000)
    assert copy.log_to_database(path, database) == len(latest) == 30_001
    back = path.with_name("back")
    assert copy.database_to_log(database, back) == 30_001
    assert reader.read(back).latest == latest
    assert {file.name for file in path.parent.iterdir()} == {
        *("state.log", "state.log.lock", "state.log.floor", "back", "back.lock", "back.floor")
    }


def test_copied_sequence_goes_on_from_its_position(path: Path, database: str) -> None:
    fill(path, 10)
    copy.log_to_database(path, database)
    with closing(Postgres(database, permanent=SHARED)) as store:
        assert store.step(SHARED, 1, 0, 99) == 13
    back = path.with_name("back")
    copy.database_to_log(database, back)
    with Log(back) as log:
        assert log.step(SHARED, 1, 0, 99) == 14


def test_copy_into_a_target_that_is_not_empty_is_refused(path: Path, database: str) -> None:
    latest = fill(path, 10)
    copy.log_to_database(path, database)
    for _ in range(2):
        with pytest.raises(StoreError, match="copy into an empty one"):
            copy.log_to_database(path, database)
    with pytest.raises(StoreError, match="copy into a new one"):
        copy.database_to_log(database, path)
    assert reader.read(path).latest == latest
    assert sequences(database) == len(latest)


def test_copy_of_a_log_in_use_is_refused(path: Path, database: str) -> None:
    fill(path, 10)
    with Log(path), pytest.raises(Locked):
        copy.log_to_database(path, database)
    assert sequences(database) == 0


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("NEW.position = NEW.position + 1; RETURN NEW", "would differ"),
        ("NEW.version = NEW.version + 1; RETURN NEW", "would differ"),
        ("NEW.day = NEW.day + 1; RETURN NEW", "would differ"),
        ("IF NEW.position = 12 THEN RETURN NULL; END IF; RETURN NEW", "instead of"),
        ("RAISE EXCEPTION 'no more'", "no more"),
    ],
)
def test_copy_that_differs_from_its_source_is_undone(
    path: Path, database: str, change: str, says: str
) -> None:
    fill(path, 10)
    with psycopg.connect(database) as connection:
        connection.execute(
            f"CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$BEGIN {change}; END$$".encode()
        )
        connection.execute(
            b"CREATE TRIGGER t BEFORE INSERT ON bigfib_sequences FOR EACH ROW "
            b"EXECUTE FUNCTION change()"
        )
    with pytest.raises(StoreError, match=says):
        copy.log_to_database(path, database)
    assert sequences(database) == 0


class TestCommand:
    @staticmethod
    def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "bigfib", "store", "copy", *arguments],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def test_store_copy_prints_the_number_of_sequences(self, path: Path, database: str) -> None:
        fill(path, 10)
        back = path.with_name("back")
        for arguments in ((path, database), (database, back)):
            done = self.run(*arguments)
            assert (done.stdout, done.stderr) == ("sequences copied and compared: 11\n", "")
        assert reader.read(back).latest == reader.read(path).latest

    def test_store_copy_of_wrong_ends_is_an_error_of_one_line(
        self, path: Path, database: str
    ) -> None:
        for arguments, says in (
            ((path, path), "a state log and a database"),
            ((database, database), "a state log and a database"),
            ((path, database), "there is no state log"),
            ((path, "mysql://x"), "a store is the path of a state log"),
            (("postgresql://127.0.0.1:1/x", path), "Connection refused"),
        ):
            done = self.run(*arguments)
            assert done.returncode in (1, 2)
            assert done.stdout == ""
            assert says in done.stderr
            assert done.stderr.count("\n") == 1
            assert not path.exists()
