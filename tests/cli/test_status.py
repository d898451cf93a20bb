"""The command `status`: what it finds, what it advises, and its exit status."""

import json
from pathlib import Path

import pytest

from bigfib import __version__
from bigfib.state import header
from tests.cli.command import Command, answering
from tests.service import Serve


def state_of(shown: str, name: str) -> str:
    """Return state and detail of a check, from the lines for people."""
    (line,) = [line for line in shown.splitlines() if line.split()[1:2] == [name]]
    state, _, detail = line.split(maxsplit=2)
    return f"{state}: {detail}"


def test_without_a_service_it_exits_with_3_and_says_how_to_start_one(bigfib: Command) -> None:
    # A port that is free.
    done = bigfib("status", "-p", "1")
    assert (done.returncode, done.stderr) == (3, "")
    assert state_of(done.stdout, "service").startswith("stopped: no bigfib answers at http://127.0")
    assert "start it with `bigfib serve`" in done.stdout
    assert state_of(done.stdout, "log").startswith("ok: there is none at")
    assert "BIGFIB_FILE" in state_of(done.stdout, "settings")
    assert list(bigfib.file.parent.iterdir()) == [], "it has changed something"


def test_running_service_is_found_by_the_lock_of_its_log(serve: Serve, bigfib: Command) -> None:
    service = serve()
    service.value("next")
    before = sorted(bigfib.file.parent.iterdir())
    shown = bigfib.prints("status")
    assert state_of(shown, "service") == f"ok: {service.url} is ready"
    assert "the shared sequence is at position 1" in state_of(shown, "log")
    assert state_of(shown, "bigfib").startswith(f"ok: {__version__}, Python 3.")
    assert sorted(bigfib.file.parent.iterdir()) == before
    document = json.loads(bigfib.prints("status", "--json"))
    assert document["state"] == "ok"
    checks = {check["name"]: check for check in document["checks"]}
    assert checks["service"] == {
        "name": "service",
        "state": "ok",
        "detail": f"{service.url} is ready",
        "advice": "",
    }
    assert list(checks) == ["bigfib", "kernel", "settings", "log", "disk", "service"]
    # The address in the lock file is not trusted: that service was killed.
    service.process.kill()
    service.process.wait()
    assert bigfib("status").returncode == 3


def test_service_at_a_url_is_asked_instead(serve: Serve, bigfib: Command, tmp_path: Path) -> None:
    service = serve()
    bigfib.environ["BIGFIB_FILE"] = str(tmp_path / "elsewhere.log")
    assert service.url in bigfib.prints("status", "--url", service.url + "/")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "answers 404 Not Found"),
        (b"HTTP/1.1 503 No\r\n\r\n" + b'{"detail":"The service is stopping."}', "is stopping"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "is lost"),
    ],
)
def test_service_that_is_not_ready_is_a_failure(bigfib: Command, answer: bytes, says: str) -> None:
    with answering(answer) as url:
        done = bigfib("status", "--url", url)
    assert (done.returncode, done.stderr) == (1, "")
    assert state_of(done.stdout, "service").startswith("failed: ")
    assert says in state_of(done.stdout, "service")


def test_service_of_another_version_is_to_be_restarted(bigfib: Command) -> None:
    ready = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    with answering(ready, ready + b'{"info":{"version":"0.0.9"}}') as url:
        shown = bigfib.prints("status", "--url", url)
    assert state_of(shown, "service") == f"note: {url} is ready, but is version 0.0.9"
    assert "restart it" in shown


def test_file_that_is_no_log_is_a_failure(bigfib: Command) -> None:
    bigfib.file.write_text("something else")
    done = bigfib("status", "-p", "1")
    assert done.returncode == 1
    assert "does not begin with the magic bytes" in state_of(done.stdout, "log")
    assert "name another file with --file" in done.stdout


def test_damaged_log_is_a_failure_and_a_torn_one_is_not(bigfib: Command) -> None:
    for _ in range(3):
        bigfib.prints("next")
    whole = bigfib.file.read_bytes()
    bigfib.file.write_bytes(whole + b"torn")
    done = bigfib("status", "-p", "1")
    assert done.returncode == 3
    assert state_of(done.stdout, "log").startswith("note: ")
    assert "the next start cuts off its end, and keeps it" in done.stdout
    bigfib.file.write_bytes(whole[: header.SIZE] + bytes(4) + whole[header.SIZE + 4 :])
    done = bigfib("status", "-p", "1")
    assert done.returncode == 1
    assert "is damaged" in state_of(done.stdout, "log")
    assert "`bigfib log repair`" in done.stdout


def test_log_that_is_gone_is_a_failure(bigfib: Command) -> None:
    bigfib.prints("next")
    bigfib.file.unlink()
    done = bigfib("status", "-p", "1")
    assert done.returncode == 1
    assert "it is gone, and was on disk up to offset" in state_of(done.stdout, "log")
    for command in ("verify", "dump", "compact", "repair", "backup"):
        target = [str(bigfib.file.with_name("copy"))] if command == "backup" else []
        assert "it is gone" in bigfib.fails("log", command, *target)
    assert not bigfib.file.exists()


def test_settings_that_matter_are_named_with_advice(bigfib: Command, tmp_path: Path) -> None:
    config = tmp_path / "bigfib.toml"
    config.write_text("port = 1\n")
    bigfib.environ |= {"BIGFIB_CONFIG": str(config), "BIGFIB_PROT": "x"}
    done = bigfib("status", "--durability", "os")
    assert (done.returncode, done.stderr) == (3, "")
    assert f"port = 1 ({config})" in done.stdout
    assert "did you mean BIGFIB_PORT?" in done.stdout
    assert state_of(done.stdout, "durability").startswith("note: os: a power failure may undo")
    assert bigfib.fails("status", "-p", "x").startswith("2: ")


def test_database_out_of_reach_is_a_failure_that_hides_the_password(bigfib: Command) -> None:
    del bigfib.environ["BIGFIB_FILE"]
    done = bigfib("status", "-p", "1", "--store", "postgresql://u:secret@127.0.0.1:1/fib")
    assert done.returncode == 1
    assert state_of(done.stdout, "store").startswith("failed: ")
    assert "u:***@127.0.0.1:1/fib" in done.stdout
    assert "secret" not in done.stdout + done.stderr


def test_database_with_and_without_tables(database: str, bigfib: Command) -> None:
    del bigfib.environ["BIGFIB_FILE"]
    done = bigfib("status", "-p", "1", "--store", database)
    assert done.returncode == 3
    assert "the shared sequence is at position 0" in state_of(done.stdout, "store")
