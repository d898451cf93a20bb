"""Run the command line: parse the arguments, call the command, report errors.

Modules that only some commands need are imported when those run, so that others start quickly.
"""

import argparse
import contextlib
import importlib
import logging
import os
import re
import shlex
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NoReturn

import bigfib
from bigfib.cli.arguments import (
    add_command,
    add_settings,
    settings_of,
    warn_of_unknown_variables,
)
from bigfib.cli.output import Failure
from bigfib.numbers.fibonacci import IndexTooLarge, InvalidIndex, InvalidValue
from bigfib.state.errors import Damaged, LogError, Unreadable, Unusable
from bigfib.state.store import CommitFailed, OutcomeUnknown, StoreError, TablesMissing, Unavailable
from bigfib.terms import InvalidModulus

if TYPE_CHECKING:
    from bigfib.cli.arguments import Commands

_logger = logging.getLogger(__name__)

_PROG: Final = "bigfib"

_MODULES: Final = {
    "sequence_commands": ["current", "c", "next", "n", "previous", "p", "seek", "create", "delete"],
    "term_commands": ["term", "terms", "index"],
    "store_commands": ["store"],
    "log_commands": ["log"],
    "settings_commands": ["settings"],
    "status_commands": ["status"],
}
"""The commands in each module of `bigfib.cli`."""

_DESCRIPTION: Final = """\
The Fibonacci sequence as a service without a ceiling.

Without a command, bigfib serves: try `bigfib`, then `curl localhost:8080/api0/next`."""

_EPILOG: Final = """\
exit status:
  0    success; for `serve`: stopped by a signal, after its replies or 5 seconds
  1    the command failed; a line on standard error, or `status` itself, says why
  2    the command was misused, or a setting has an invalid value
  3    `status`: all is well, but no service runs
  4    `log verify`: the end of the log is torn, and will be cut off
  130  interrupted by Ctrl-C
  128 + the number of another signal that ended it

Every setting is a flag of `serve`, a variable BIGFIB_*, and a key of the settings file; the
flag overrides the variable, and the variable the file. `bigfib settings` shows all settings,
their values and their sources."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status, which the epilog explains."""
    _open_closed_streams()
    # File names need not be valid text; print them anyway.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    # Until `serve` configures logging, Python's handler of last resort writes messages to stderr.
    assert logging.lastResort is not None  # noqa: S101 - nobody has removed it
    logging.lastResort.setFormatter(logging.Formatter("bigfib: %(message)s"))
    # Ignore logging errors: stderr itself is gone.
    logging.raiseExceptions = False
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    finally:
        _drop_unwritten_messages()


def _run(arguments: list[str]) -> int:
    command = None
    try:
        if arguments == ["--version", "-v"]:
            _print_version_and_kernel()
            return 0
        command = _parse(arguments)
        status: int | None = command.run(command)
        sys.stdout.flush()
    except (InvalidIndex, InvalidModulus, InvalidValue) as error:
        return _fail(str(error), 2)
    except TablesMissing as error:
        return _fail(f"{error}; create them with `bigfib store init`", 1)
    except LogError as error:
        return _fail(f"{error}{_remedy(error)}", 1)
    except (CommitFailed, Failure, IndexTooLarge, StoreError, Unavailable) as error:
        return _fail(str(error), 1)
    except OutcomeUnknown as error:
        return _fail(f"{error}; check with `current` whether the sequence has changed", 1)
    except OSError as error:
        return _fail_to_write(error, moved=getattr(command, "moved", False))
    except MemoryError:
        return _fail("there is not enough memory for terms as large as these", 1)
    except KeyboardInterrupt:
        return 130
    except (RuntimeError, ValueError) as error:
        return _fail_or_raise(error)
    return status or 0


def _fail_or_raise(error: Exception) -> int:
    """Report an error of a module that not every command imports; raise any other."""
    from bigfib.client import ServiceError
    from bigfib.settings import InvalidSetting

    if isinstance(error, ServiceError):
        return _fail(str(error), 1)
    if isinstance(error, InvalidSetting):
        return _fail(str(error), 2)
    raise error


def _print_version_and_kernel() -> None:
    from bigfib.numbers import kernel

    print(f"bigfib {bigfib.__version__}\nkernel: {kernel.description()}")


def _remedy(error: LogError) -> str:
    """Return the advice to append to the message of the error."""
    if isinstance(error, Unusable):
        return "; name another file with --file"
    if isinstance(error, (Damaged, Unreadable)):
        path = shlex.quote(str(error.path))
        return f"; see what can be saved with `bigfib log repair -f {path}`"
    return ""


def _fail(message: str, status: int) -> int:
    # Log it instead of printing it: `serve` may be configured to log JSON.
    _logger.error("%s", message, exc_info=_logger.isEnabledFor(logging.DEBUG))
    return status


def _fail_to_write(error: OSError, *, moved: bool) -> int:
    # Python would report the same error again when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # The reader has closed the pipe.
        return 1
    made = "; the step was made: see `current`" if moved else ""
    return _fail(f"{error.filename or 'cannot write the answer'}: {error.strerror}{made}", 1)


def _open_closed_streams() -> None:
    """Open each of stdin, stdout and stderr that the caller closed.

    Otherwise the state log might get the descriptor of stderr, and messages would be written to it.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115 - for good
    if sys.stdout is None:
        # Opened for reading, so that writing fails: the command must not lose its answer silently.
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - for good


def _drop_unwritten_messages() -> None:
    """Drop messages that stderr refuses: Python would retry at exit, and exit with 120."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


# argparse's message about an unknown command, which lists the known ones.
_UNKNOWN_COMMAND: Final = re.compile(
    r"argument COMMAND: invalid choice: (.*) \(choose from (.*)\)", re.DOTALL
)


class _Parser(argparse.ArgumentParser):
    """Report misuse in one line.

    Attributes:
        commands: The parser of each command, by name.
    """

    commands: Mapping[str, argparse.ArgumentParser]

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        # If help cannot be written, fail now instead of when Python exits.
        sys.stdout.flush()
        # argparse would change the exit status if stderr is full, before Python 3.12.
        with contextlib.suppress(OSError):
            sys.stderr.write(message or "")
        sys.exit(status)

    def error(self, message: str) -> NoReturn:
        if found := _UNKNOWN_COMMAND.fullmatch(message):
            known = re.findall(r"[\w-]+", found[2])
            message = f"there is no command {found[1]:.60}{_guess(found[1], known)}"
        self.exit(2, f"bigfib: {message}; see {self.prog} --help\n")


def _parse(arguments: list[str]) -> argparse.Namespace:
    for module, names in _MODULES.items():
        if arguments and arguments[0] in names:
            # Importing the other modules takes longer than computing a short term.
            single = _Parser(prog=_PROG)
            _add_module(module, single.add_subparsers())
            return _parse_known(single, arguments)
    whole = parser()
    first = _command_first(arguments, whole.commands["serve"], set(whole.commands))
    return _parse_known(whole, first)


def _parse_known(parser: _Parser, arguments: list[str]) -> argparse.Namespace:
    """Parse the arguments; if any are unknown, suggest what was meant by the first."""
    command, unknown = parser.parse_known_args(arguments)
    if unknown:
        names = [*_names(parser, arguments), *getattr(parser, "commands", ())]
        guess = _guess(unknown[0].partition("=")[0], names)
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{guess}")
    return command


def _names(parser: argparse.ArgumentParser, arguments: list[str]) -> list[str]:
    """Return the options of the command that the arguments name."""
    names: list[str] = []
    for action in parser._actions:
        names += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for argument in arguments:
                if argument in action.choices:
                    return _names(action.choices[argument], arguments)
    return names


def _guess(word: str, known: list[str]) -> str:
    """Return the question "did you mean ...?" if a known word resembles ``word``, or nothing."""
    import difflib

    close = difflib.get_close_matches(word.strip("'"), known, 1, 0.7)
    return f" (did you mean {close[0]}?)" if close else ""


def parser() -> _Parser:
    """Return the parser of the whole command line; argparse-manpage calls it, too."""
    whole = _Parser(
        prog=_PROG,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    whole.add_argument(
        "--version",
        action="version",
        version=f"bigfib {bigfib.__version__}",
        help="show the version; followed by -v, also which C kernel is in use",
    )
    commands = whole.add_subparsers(title="commands", metavar="COMMAND")
    serve = add_command(
        commands, "serve", _serve, "Serve over HTTP until SIGTERM or Ctrl-C (the default)."
    )
    add_settings(serve)
    for module in _MODULES:
        _add_module(module, commands)
    completion = add_command(
        commands, "completion", _completion, "Print the completion script for a shell."
    )
    completion.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell")
    whole.commands = commands.choices
    return whole


def _add_module(module: str, commands: "Commands") -> None:
    """Add the commands of a module."""
    importlib.import_module(f"bigfib.cli.{module}").add_to(commands)


def _command_first(
    arguments: list[str], serve: argparse.ArgumentParser, commands: set[str]
) -> list[str]:
    """Move the command to the front of ``arguments``, or put `serve` there if there is none.

    The service that bigfib replaces took its flags before the command.
    """
    if arguments and (arguments[0] in {"-h", "--help", "--version"} or arguments[0][:1] != "-"):
        return arguments
    _, others = serve.parse_known_args([a for a in arguments if a not in {"-h", "--help"}])
    for other in others:
        if other in commands:
            rest = arguments.copy()
            rest.remove(other)
            return [other, *rest]
    return ["serve", *arguments]


def _serve(command: argparse.Namespace) -> None:
    from bigfib.server import CannotServe, logs
    from bigfib.server.serve import serve

    settings = settings_of(command, warn=False)
    logs.configure(settings.log_format, debug=settings.debug)
    warn_of_unknown_variables()
    if settings.debug:
        from bigfib.cli import settings_commands

        for name, value, source in settings_commands.rows(command):
            _logger.debug("setting %s = %r (%s)", name, value, source)
    try:
        serve(settings)
    except CannotServe as error:
        raise Failure(str(error)) from error


def _completion(command: argparse.Namespace) -> None:
    import shtab

    whole = parser()
    # Without a command bigfib serves, so the flags of `serve` are completed, too.
    add_settings(whole)
    _set_completions(whole)
    print(shtab.complete(whole, command.shell))


def _set_completions(parser: argparse.ArgumentParser) -> None:
    """Set shtab's attribute ``complete`` on the arguments that `arguments.complete` marked."""
    import shtab

    for action in parser._actions:
        if kind := getattr(action, "completes", None):
            action.complete = getattr(shtab, kind)  # type: ignore[attr-defined]
        if isinstance(action, argparse._SubParsersAction):
            for command in set(action.choices.values()):
                _set_completions(command)
