"""`--debug` logs what the service does; without it, nothing of this is logged."""

import json
import signal

import pytest

from tests.cli.command import Command
from tests.service import Serve, until


@pytest.mark.parametrize("debug", [True, False])
def test_debug_logs_settings_requests_and_large_terms(serve: Serve, debug: bool) -> None:
    service = serve("--max-sequences", "7", *(["--debug"] if debug else []))
    service.value("next")
    until(
        lambda: service.ask("/api1/terms/6000000", headers={"Range": "bytes=0-9"})[0].status == 206
    )
    assert service.stop(signal.SIGTERM) == 0
    said = "".join(service.said)
    for text in (
        "bigfib: setting max_sequences = 7 (--max-sequences)\n",
        "bigfib: setting durability = 'fsync' (default)\n",
        '"GET /api0/next HTTP/1.1" 200',
        "bigfib: F(6000000) was computed by process ",
    ):
        assert (text in said) is debug, said


def test_debug_messages_have_their_level_in_json(serve: Serve) -> None:
    service = serve("-d", "--log-format", "json")
    service.stop(signal.SIGTERM)
    documents = [json.loads(line) for line in "".join(service.said).splitlines()]
    (port,) = [each for each in documents if each.get("message", "").startswith("setting port")]
    assert (port["level"], port["message"]) == ("debug", "setting port = 0 (--port)")


def test_error_that_ends_a_service_has_its_traceback_with_debug_only(bigfib: Command) -> None:
    bigfib.file.write_text("something else")
    done = bigfib("serve", "-p", "0", "--debug")
    assert done.returncode == 1
    assert "does not begin with the magic bytes" in done.stderr
    assert "Traceback (most recent call last):" in done.stderr
    assert "Traceback" not in bigfib.fails("serve", "-p", "0")


def test_password_of_the_store_is_not_logged(bigfib: Command) -> None:
    del bigfib.environ["BIGFIB_FILE"]
    done = bigfib("serve", "-p", "0", "--debug", "--store", "postgresql://u:secret@127.0.0.1:1/fib")
    assert done.returncode == 1
    assert "'postgresql://u:***@127.0.0.1:1/fib'" in done.stderr
    assert "u:secret" not in done.stderr
