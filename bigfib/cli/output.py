"""Print the answer of a command, or write it to a file."""

import os
import re
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn, TextIO

# A terminal shows only the ends of a term longer than this.
_SHOWN_WHOLE: Final = 1000
_SHOWN_ENDS: Final = 40

_GROUP: Final = 3


class Failure(Exception):
    """A command failed; the message says why and what to do."""


def shortened(text: str, full: bool, group: bool, file: TextIO | None = None) -> str:
    """Shorten a long term if ``file`` (default: stdout) is a terminal; add commas if ``group``."""
    if full or len(text) <= _SHOWN_WHOLE or not (file or sys.stdout).isatty():
        return with_commas(text) if group else text
    digits = len(text.lstrip("-"))
    first, last = text[:_SHOWN_ENDS], text[-_SHOWN_ENDS:]
    if group:
        # Cut where the complete term has commas.
        most = _SHOWN_ENDS // _GROUP * _GROUP
        first = with_commas(text[: most - -digits % _GROUP + len(text) - digits])
        last = with_commas(text[-most:])
    return f"{first}...{last} ({digits} digits; --full shows them)"


def with_commas(text: str) -> str:
    """Return a number with commas between groups of three digits."""
    return "".join(grouped([text], len(text.lstrip("-"))))


def grouped(pieces: Iterable[str], digits: int) -> Iterator[str]:
    """Insert commas into a number that comes in pieces and has ``digits`` digits in all."""
    rest, comma = " " * (-digits % _GROUP), ""
    for piece in pieces:
        if piece.startswith("-"):
            yield "-"
        rest += piece.removeprefix("-")
        whole = len(rest) // _GROUP * _GROUP
        if whole:
            yield (comma + ",".join(re.findall("." * _GROUP, rest[:whole]))).lstrip()
            rest, comma = rest[whole:], ","


def as_json(document: Mapping[str, object]) -> str:
    """Return the document as one line of JSON."""
    import json

    return json.dumps(document, separators=(",", ":"))


def print_json(document: Mapping[str, object], file: TextIO | None = None) -> None:
    """Print the document on a line of its own."""
    print(as_json(document), file=file)


def print_table(*rows: Sequence[str]) -> None:
    """Print rows as aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def print_note(text: str) -> None:
    """Print a line on standard error; ignore errors, because the answer is on stdout."""
    with suppress(OSError):
        print(text, file=sys.stderr)


@contextmanager
def answer_to(path: Path | None) -> Iterator[TextIO]:
    """Open standard output (for None or ``-``), or a file that is renamed to ``path`` when done."""
    if path is None or str(path) == "-":
        yield sys.stdout
        return
    try:
        if path.exists() and not path.is_file():
            # Write into a device or pipe instead of replacing it.
            with path.open("w") as file:
                yield file
            return
        # Resolve links, to replace the target instead of the link.
        target = path.resolve()
        unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")
        # These signals must remove the unfinished file, too, as Ctrl-C does.
        for number in (signal.SIGHUP, signal.SIGTERM):
            # nohup ignores SIGHUP.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _end)
        try:
            # Never follow a link or open a pipe that has this name.
            unfinished.unlink(missing_ok=True)
            with unfinished.open("x") as file:
                if target.exists():
                    unfinished.chmod(target.stat().st_mode & 0o777)
                yield file
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failure(f"cannot write {path}: {error.strerror}") from error


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)
