"""Define ``log verify``, ``dump``, ``compact``, ``repair`` and ``backup``."""

import argparse
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gmpy2 import mpz

from bigfib.cli.arguments import add_command, add_group, add_settings, settings_of
from bigfib.cli.output import Failure, print_json
from bigfib.sequences import format_id
from bigfib.state.errors import Unusable

if TYPE_CHECKING:
    from bigfib.cli.arguments import Commands

# Exit status of `log verify`.
_TORN: Final = 4


def add_to(commands: "Commands") -> None:
    """Add the commands."""
    group = add_group(
        commands,
        "log",
        "Check, print, compact, repair or back up a state log.",
        "verify, dump, compact, repair or backup",
    )
    for name, run, meaning in (
        ("verify", _verify, "Check every record; changes nothing."),
        ("dump", _dump, "Print every record: offset, id, position, day, durable offset."),
        ("compact", _compact, "Compact the log, as the service does by itself."),
        ("repair", _repair, "Save what can be read of a damaged log to a new file next to it."),
        ("backup", _backup, "Write a verified copy; a service may go on writing to the log."),
    ):
        parser = add_command(group, name, run, meaning)
        add_settings(parser, "file")
        if run is _dump:
            parser.add_argument("--json", action="store_true", help="print each as a line of JSON")
        if run is _backup:
            parser.add_argument("target", type=Path, metavar="DEST", help="the copy to write")


@contextmanager
def explain_lock() -> Iterator[None]:
    """Add advice to the error of a state log that another process has open."""
    from bigfib.state.errors import Locked

    try:
        yield
    except Locked as error:
        way = (
            f"use --url {shlex.quote(error.owner_url)}"
            if error.owner_url
            else "try again when it has ended"
        )
        raise Failure(f"{error}; {way}") from error


def require_log(path: Path) -> None:
    """Check that there is a file at ``path``.

    Raises:
        Failure: There is none, and there was none.
        Unusable: The path cannot be accessed, or the log that was there is gone.
    """
    try:
        path.stat()
    except FileNotFoundError:
        from bigfib.state import reader

        reader.read(path)  # This raises if there was a log.
        raise Failure(f"there is no state log at {path} yet; name another with --file") from None
    except OSError as error:
        raise Unusable(path, error) from error


def _existing(command: argparse.Namespace) -> Path:
    path = settings_of(command).file
    require_log(path)
    return path


def _verify(command: argparse.Namespace) -> int:
    path = _existing(command)
    from bigfib.state import reader
    from bigfib.state.recovery import Decision

    contents = reader.read(path)
    torn = contents.case.decision is Decision.CUT
    state = "whole"
    if message := contents.message(path):
        state = f"torn: {message}" if torn else f"whole, but {message}"
    if torn:
        state += (
            f"; the {(contents.size or 0) - contents.end} bytes from there on will be cut off, and "
            "kept in another file, when it is next opened for writing"
        )
    counts = f"records {contents.records}, sequences {len(contents.latest)}"
    print(f"{path}: {counts}, bytes {contents.end}: {state}")
    return _TORN if torn else 0


def _dump(command: argparse.Namespace) -> None:
    path = _existing(command)
    from bigfib.state import reader

    with reader.opened(path) as records:
        for offset, record in records:
            name = format_id(record.sequence_id)
            # A position may have more digits than `str` of an int allows.
            position = None if record.position is None else str(mpz(record.position))
            if command.json:
                print_json(
                    {
                        "offset": offset,
                        "id": name,
                        "position": position,
                        "day": record.day,
                        "durable": record.durable,
                    }
                )
            else:
                print(offset, name, position or "removed", record.day, record.durable)
        if records.fault:
            raise Failure(f"state log {path}: {records.fault}")


def _compact(command: argparse.Namespace) -> None:
    from bigfib.stores import open_log

    path = _existing(command)
    before = path.stat().st_size
    # Otherwise opening a large log would already compact it.
    command.rewrite_bytes = str(1 << 40)
    with explain_lock(), open_log(settings_of(command, warn=False), expire=False) as opened:
        opened.compact()
    print(f"{path}: bytes {before} before, {path.stat().st_size} now")


def _repair(command: argparse.Namespace) -> None:
    from bigfib.state import reader
    from bigfib.state.errors import Locked
    from bigfib.state.files import Held
    from bigfib.state.recovery import Decision
    from bigfib.state.repair import repair

    path = _existing(command)
    if reader.inspect(path).case.decision is Decision.OPEN:
        print(f"{path}: needs no repair")
        return
    try:
        repaired = repair(path)
    except Held as holder:
        raise Locked(path, holder.pid, holder.owner_url) from None
    except OSError as error:
        raise Failure(f"cannot repair {path}: {error.strerror}") from error
    print(f"{repaired.target}: sequences {repaired.sequences}, from records {repaired.records}")
    for start, end in repaired.lost:
        print(f"lost: bytes {start} to {end - 1}")
    for start, end in repaired.applied:
        print(f"applied, although after a fault: bytes {start} to {end - 1}")
    if repaired.lost:
        print("A sequence whose last record is lost is now at an earlier position.")
    command_to_paste = shlex.join(["mv", str(repaired.target), str(repaired.source)])
    print(f"Put it in place with: {command_to_paste}")


def _backup(command: argparse.Namespace) -> None:
    from bigfib.state.backup import backup

    path = _existing(command)
    try:
        contents = backup(path, command.target)
    except OSError as error:
        raise Failure(f"cannot write the backup {command.target}: {error.strerror}") from error
    print(f"{command.target}: sequences {len(contents.latest)}, verified")
