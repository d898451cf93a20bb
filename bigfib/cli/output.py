"""What a command gives: an answer, on standard output or in a file, or else a failure."""

import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NoReturn, TextIO

# On a terminal a term longer than this is shown by its ends.
_SHOWN_WHOLE: Final = 1000
_SHOWN_ENDS: Final = 40

_UNFOLDED: Final = 10_000


class Failure(Exception):
    """A command cannot do what it was asked; the message says why and what to do."""


def shortened(text: str, full: bool, file: TextIO | None = None) -> str:
    """Return a long term by its ends where a person reads it, and whole anywhere else."""
    if full or len(text) <= _SHOWN_WHOLE or not (file or sys.stdout).isatty():
        return text
    ends = f"{text[:_SHOWN_ENDS]}...{text[-_SHOWN_ENDS:]}"
    return f"{ends} ({len(text.lstrip('-'))} digits; --full shows them)"


def as_json(document: Mapping[str, object]) -> str:
    """Return the document as JSON, in one line."""
    import json

    return json.dumps(document, separators=(",", ":"))


def print_json(document: Mapping[str, object], file: TextIO | None = None) -> None:
    """Print the document on a line of its own."""
    print(as_json(document), file=file)


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table for a person at a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=None, pad_edge=False, header_style="")
    for row in rows:
        # As it is: brackets would be taken for styles.
        table.add_row(*map(Text, row))
    # The terminal breaks a line that is too long in a way that can be copied; a folded cell cannot.
    Console(width=_UNFOLDED).print(table)


def print_note(text: str) -> None:
    """Print a line on standard error, unless that cannot be written: it is not the answer."""
    with suppress(OSError):
        print(text, file=sys.stderr)


@contextmanager
def answer_to(path: Path | None) -> Iterator[TextIO]:
    """Give standard output, also for ``-``, or a file that takes its name only once it is whole."""
    if path is None or str(path) == "-":
        yield sys.stdout
        return
    from bigfib.computation import set_handler

    try:
        if path.exists() and not path.is_file():
            # A device or a pipe is not to be replaced.
            with path.open("w") as file:
                yield file
            return
        # Where links lead, so that the link stays one.
        target = path.resolve()
        unfinished = target.with_name(f"{target.name}.{os.getpid()}.part")
        # Remove the unfinished file, as after a Ctrl-C.
        set_handler(_end, signal.SIGHUP, signal.SIGTERM)
        try:
            # Not through a link, and not into a pipe, that somebody has put there.
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
