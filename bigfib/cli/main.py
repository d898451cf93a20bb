"""Run the command line: parse the arguments, call the command, report errors.

Whatever only some commands need is imported when they run, so that the others start quickly.
"""

import argparse
import contextlib
import importlib
import logging
import os
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
from bigfib.state.store import OutcomeUnknown, StoreError, TablesMissing, Unavailable
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
}
"""The commands in each module of `bigfib.cli`."""

_DESCRIPTION: Final = """\
The Fibonacci sequence as a service without a ceiling.

Without a command, bigfib serves: try `bigfib`, then `curl localhost:8080/api0/next`."""

_EPILOG: Final = """\
exit status:
  0    success; for `serve`: stopped by a signal, after its replies or 5 seconds
  1    the command failed, and one line on standard error says why and what to do
  2    the command was misused, or a setting has an invalid value
  130  interrupted by Ctrl-C
  128 + the number of another signal that ended it

Every setting is a flag of `serve`, a variable BIGFIB_*, and a key of the settings file; the
first of these counts. `bigfib settings` shows all settings, their values and their sources."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 (it failed) or 2 (it was misused)."""
    _open_closed_streams()
    # Names of files need not be valid text; print them all the same.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    # Until `serve` configures logging, messages reach stderr by Python's handler of last resort.
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
        command.run(command)
        sys.stdout.flush()
    except (InvalidIndex, InvalidModulus, InvalidValue) as error:
        return _fail(str(error), 2)
    except TablesMissing as error:
        return _fail(f"{error}; make them with `bigfib store init`", 1)
    except LogError as error:
        return _fail(f"{error}{_remedy(error)}", 1)
    except (Failure, IndexTooLarge, StoreError, Unavailable) as error:
        return _fail(str(error), 1)
    except OutcomeUnknown as error:
        return _fail(f"{error}; whether it has changed, ask with `current`", 1)
    except OSError as error:
        return _fail_to_write(error, moved=getattr(command, "moved", False))
    except MemoryError:
        return _fail("there is not enough memory for terms as large as these", 1)
    except KeyboardInterrupt:
        return 130
    except ValueError as error:
        from bigfib.settings import InvalidSetting

        if isinstance(error, InvalidSetting):
            return _fail(str(error), 2)
        raise
    return 0


def _print_version_and_kernel() -> None:
    from bigfib.numbers import kernel

    print(f"bigfib {bigfib.__version__}\nkernel: {kernel.description()}")


def _remedy(error: LogError) -> str:
    """Return what to run about the error, to append to its message."""
    if isinstance(error, Unusable):
        return "; name another file with --file"
    if isinstance(error, (Damaged, Unreadable)):
        path = shlex.quote(str(error.path))
        return f"; see what can be saved with `bigfib log repair -f {path}`"
    return ""


def _fail(message: str, status: int) -> int:
    # Logged, not printed: `serve` may have been configured to log JSON.
    _logger.error("%s", message)
    return status


def _fail_to_write(error: OSError, *, moved: bool) -> int:
    # Python would report the same error again when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # The reader wants no more.
        return 1
    made = "; the step was made: see `current`" if moved else ""
    return _fail(f"{error.filename or 'cannot write the answer'}: {error.strerror}{made}", 1)


def _open_closed_streams() -> None:
    """Open each of stdin, stdout and stderr that the caller closed.

    Otherwise the state log might get the descriptor of stderr, and receive messages.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115 - for good
    if sys.stdout is None:
        # Opened for reading, so that writing fails: an answer that is lost is a failure.
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - for good


def _drop_unwritten_messages() -> None:
    """Drop messages that stderr does not take: Python would retry at exit, and exit with 120."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


class _Parser(argparse.ArgumentParser):
    """Report misuse in one line.

    Attributes:
        commands: The parser of each command, by name.
    """

    commands: Mapping[str, argparse.ArgumentParser]

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        # Fail here if help cannot be written, and not when Python exits.
        sys.stdout.flush()
        # Not by argparse: before Python 3.12 a full stderr changes the exit status.
        with contextlib.suppress(OSError):
            sys.stderr.write(message or "")
        sys.exit(status)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bigfib: {message}; see {self.prog} --help\n")


def _parse(arguments: list[str]) -> argparse.Namespace:
    for module, names in _MODULES.items():
        if arguments and arguments[0] in names:
            # Importing the others takes longer than a short term.
            single = _Parser(prog=_PROG)
            _add_module(module, single.add_subparsers())
            return single.parse_args(arguments)
    whole = parser()
    return whole.parse_args(_command_first(arguments, whole.commands["serve"], set(whole.commands)))


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
        help="show the version; with -v after it, also which C kernel is in use",
    )
    commands = whole.add_subparsers(title="commands", metavar="COMMAND")
    serve = add_command(
        commands, "serve", _serve, "Serve over HTTP until SIGTERM or Ctrl-C (the default)."
    )
    add_settings(serve)
    for module in _MODULES:
        _add_module(module, commands)
    completion = add_command(
        commands, "completion", _completion, "Print the script with which a shell completes bigfib."
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
    """Return ``arguments`` with the command in front, and with `serve` if there is none.

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
    logs.configure(settings.log_format)
    warn_of_unknown_variables()
    try:
        serve(settings)
    except CannotServe as error:
        raise Failure(str(error)) from error


def _completion(command: argparse.Namespace) -> None:
    import shtab

    whole = parser()
    # Without a command bigfib serves.
    add_settings(whole)
    _set_completions(whole)
    print(shtab.complete(whole, command.shell))


def _set_completions(parser: argparse.ArgumentParser) -> None:
    """Give each value that `arguments.complete` marked the attribute that shtab reads."""
    import shtab

    for action in parser._actions:
        if kind := getattr(action, "completes", None):
            action.complete = getattr(shtab, kind)  # type: ignore[attr-defined]
        if isinstance(action, argparse._SubParsersAction):
            for command in set(action.choices.values()):
                _set_completions(command)
