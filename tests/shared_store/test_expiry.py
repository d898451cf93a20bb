"""Old sequences, and a server whose clock is wrong."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.service import Serve

CLOCK = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *)) dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += 86400 * atol(getenv("DAYS_AHEAD"));
    return failed;
}
"""


@pytest.fixture
def clock_ahead(tmp_path: Path, require: Callable[[str], str]) -> Callable[[int], list[str]]:
    """Return a command that runs a process whose clock is this many days ahead."""
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(CLOCK)
    command = [require("cc"), "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return lambda days: ["env", f"LD_PRELOAD={library}", f"DAYS_AHEAD={days}"]


@pytest.mark.parametrize("days", [91, -91])
def test_server_whose_clock_is_wrong_deletes_no_sequence_and_notes_the_day_of_the_database(
    serve: Serve, database: str, clock_ahead: Callable[[int], list[str]], days: int
) -> None:
    today = "(now() AT TIME ZONE 'UTC')::date - '1970-01-01'::date"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            f"INSERT INTO bigfib_sequences SELECT decode(to_hex(n), 'hex'), 1, {today} "
            "FROM generate_series(16, 99) AS n".encode()
        )
        service = serve("--store", database, before=clock_ahead(days))
        for _ in range(5):
            assert service.ask("/api1/sequences", "POST")[0].status == 201
        rows = connection.execute(
            f"SELECT count(*), max(abs(day - ({today}))) FROM bigfib_sequences".encode()
        ).fetchall()
    # At midnight the day may have changed meanwhile.
    assert rows in ([(89, 0)], [(89, 1)])
