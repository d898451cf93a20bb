"""Define ``status``, which shows what is in use, whether it works, and what to do otherwise.

It changes nothing, and starts nothing.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

import bigfib
from bigfib.cli.arguments import (
    add_command,
    add_settings,
    add_url,
    settings_and_sources,
    unknown_variables,
)
from bigfib.cli.output import print_json, print_table
from bigfib.sequences import SHARED
from bigfib.settings import Durability, Settings, without_password
from bigfib.state.errors import LogError, Unusable
from bigfib.state.store import StoreError, TablesMissing

if TYPE_CHECKING:
    from bigfib.cli.arguments import Commands

OK: Final = "ok"
NOTE: Final = "note"
STOPPED: Final = "stopped"
FAILED: Final = "failed"

_EXIT_STATUS: Final = {FAILED: 1, STOPPED: 3}
"""The exit status by the worst state, the worst first; 0 for other states."""

_LITTLE_ROOM: Final = 64 << 20

_SERVICE_TIMEOUT: Final = 5
"""Seconds without a byte after which the service counts as failed."""


class Finding(NamedTuple):
    """The result of one check.

    Attributes:
        name: What was checked.
        state: `OK`, `NOTE`, `STOPPED` or `FAILED`.
        detail: What was found.
        advice: What to do about it.
    """

    name: str
    state: str
    detail: str
    advice: str = ""


def add_to(commands: "Commands") -> None:
    """Add the command."""
    status = add_command(
        commands,
        "status",
        _status,
        "Show what is in use, whether it works, and what to do; changes nothing. Exits with 0 if "
        "the service is ready, 3 if none runs and all else is well, 1 if something has failed.",
    )
    add_settings(status, "file", "store", "durability", "host", "port")
    add_url(status, "(default: the address of the settings)")
    status.add_argument("--json", action="store_true", help="print a JSON document")


def _status(command: argparse.Namespace) -> int:
    findings = list(_findings(command))
    states = [finding.state for finding in findings]
    worst = next((state for state in _EXIT_STATUS if state in states), OK)
    if command.json:
        print_json({"state": worst, "checks": [finding._asdict() for finding in findings]})
    else:
        print_table(*_rows(findings))
    return _EXIT_STATUS.get(worst, 0)


def _rows(findings: list[Finding]) -> Iterator[tuple[str, str, str]]:
    for finding in findings:
        yield finding.state, finding.name, finding.detail
        if finding.advice:
            yield "", "", finding.advice


def _findings(command: argparse.Namespace) -> Iterator[Finding]:
    yield Finding("bigfib", OK, f"{bigfib.__version__}, Python {sys.version.split()[0]}")
    yield _kernel()
    settings, sources = settings_and_sources(command)
    yield from _settings(settings, sources)
    yield _store(settings) if settings.store else _log(settings)
    if not settings.store:
        yield _disk(settings)
    yield _service(command.url or _url(settings))


def _kernel() -> Finding:
    from bigfib.numbers import kernel

    # Without a kernel, the description says what to do.
    state = OK if kernel.load() else NOTE
    return Finding("kernel", state, kernel.description())


def _settings(settings: Settings, sources: dict[str, str]) -> Iterator[Finding]:
    given = [
        f"{name} = {without_password(str(getattr(value, 'value', value)))} ({source})"
        for name, source in sources.items()
        for value in [getattr(settings, name)]
    ]
    yield Finding("settings", OK, "; ".join(given) or "all have their defaults")
    for warning in unknown_variables(os.environ):
        yield Finding("settings", NOTE, warning)
    if settings.durability is Durability.OS and not settings.store:
        yield Finding(
            "durability",
            NOTE,
            "os: a power failure may undo acknowledged steps",
            "use --durability fsync where that matters",
        )


def _store(settings: Settings) -> Finding:
    name = without_password(settings.store)
    from bigfib.state.postgres.lookup import find

    try:
        position = find(settings.store, SHARED) or 0
    except TablesMissing as error:
        return Finding("store", FAILED, str(error), "create them with `bigfib store init`")
    except StoreError as error:
        return Finding("store", FAILED, str(error), f"check that {name} is right and up")
    return Finding("store", OK, f"{name}: the shared sequence is at position {position}")


def _log(settings: Settings) -> Finding:
    from bigfib.state import reader
    from bigfib.state.recovery import Decision

    path = settings.file
    try:
        contents = reader.read(path)
    except (LogError, OSError) as error:
        unusable = isinstance(error, (Unusable, OSError))
        other = "name another file with --file, or run this as the user of the service"
        repair = "see what can be saved with `bigfib log repair`"
        return Finding("log", FAILED, str(error), other if unusable else repair)
    decision = contents.case.decision
    if decision is Decision.CREATE:
        return Finding("log", OK, f"there is none at {path} yet; `bigfib serve` creates it")
    detail = (
        f"{path}: {contents.records} records, {contents.end} bytes; the shared sequence is at "
        f"position {contents.position(SHARED)}"
    )
    if message := contents.message(path):
        advice = "the next start cuts off its end, and keeps it in another file"
        return Finding("log", NOTE, f"{detail}; {message}", advice * (decision is Decision.CUT))
    return Finding("log", OK, detail)


def _disk(settings: Settings) -> Finding:
    directory = next(each for each in settings.file.absolute().parents if each.exists())
    free = shutil.disk_usage(directory).free
    detail = f"{free >> 20} MiB free for the log in {directory}"
    if free < _LITTLE_ROOM:
        return Finding("disk", NOTE, detail, "make room: steps are refused when the disk is full")
    return Finding("disk", OK, detail)


def _url(settings: Settings) -> str:
    """Return the service's address, from the lock of the log or else from the settings."""
    if not settings.store:
        try:
            _, _, url = (
                settings.file.with_name(f"{settings.file.name}.lock").read_text().partition("\n")
            )
        except (OSError, ValueError):
            url = ""
        # Commands lock the log, too, and have no address.
        if url.strip():
            return url.strip()
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"http://{host}:{settings.port}"


def _service(url: str) -> Finding:
    from bigfib.client import Client, ServiceError

    try:
        version = Client(url, timeout=_SERVICE_TIMEOUT, attempts=1).version()
    except ServiceError as error:
        # Nothing listens at the address; any other error is a failure.
        if isinstance(getattr(error.__cause__, "reason", None), ConnectionRefusedError):
            return Finding("service", STOPPED, str(error), "start it with `bigfib serve`")
        advice = "read its log, and find out which program has its port"
        return Finding("service", FAILED, str(error), advice)
    if version != bigfib.__version__:
        detail = f"{url} is ready, but is version {version}"
        return Finding("service", NOTE, detail, "restart it to run this version")
    return Finding("service", OK, f"{url} is ready")
