"""The command line. Imports the server only when it serves: the other commands are to be quick."""

import argparse
import dataclasses
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, Final, NoReturn

import shtab
from gmpy2 import mpz

import bigfib
from bigfib import terms
from bigfib.cli import large_terms, settings_file
from bigfib.cli.output import (
    Failure,
    answer_to,
    as_json,
    print_json,
    print_note,
    print_table,
    shortened,
)
from bigfib.cli.settings_file import default_path
from bigfib.current_terms import Sequence
from bigfib.numbers import fibonacci
from bigfib.numbers.decimals import StartOfSequence
from bigfib.numbers.fibonacci import IndexTooLarge, InvalidIndex
from bigfib.sequences import (
    SHARED,
    Sequences,
    find_in_database,
    format_id,
    lacks_driver,
    open_log,
    open_store,
    parse_position,
    require_steps,
)
from bigfib.server import logs
from bigfib.settings import (
    CONFIG,
    InvalidSetting,
    Settings,
    resolve,
    unknown_variables,
    variable,
    without_password,
)
from bigfib.state import reader
from bigfib.state.errors import Damaged, Locked, LogError, Unreadable, Unusable
from bigfib.state.log import Log
from bigfib.state.store import OutcomeUnknown, Store, StoreError, Unavailable
from bigfib.terms import InvalidModulus

_logger = logging.getLogger(__name__)

_DESCRIPTION: Final = """\
The Fibonacci sequence as a service without a ceiling.

Without a command, bigfib serves: try `bigfib`, then `curl localhost:8080/api0/next`."""

_EPILOG: Final = """\
exit status:
  0    done; of `serve`: stopped by a signal, with the replies finished, or 5 seconds later
  1    the command failed, and one line on standard error says why and what to do
  2    the command was misused, or a setting has a value that it cannot have
  130  interrupted by Ctrl-C
  128 + the number of the signal that has ended it otherwise

Every setting is a flag of `serve`, a variable BIGFIB_*, and a key of the settings file, in
that order; `bigfib settings` shows which there are, what they are, and where from."""

_SERVE_SETTINGS: Final = [setting.name for setting in dataclasses.fields(Settings)]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 (it failed) or 2 (it was misused)."""
    _open_closed_streams()
    # A file's name may have bytes that are no text; it is shown all the same.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    logs.configure()
    try:
        return _run(arguments)
    finally:
        _drop_unwritten_messages()


def _run(arguments: list[str] | None) -> int:
    command = None
    try:
        command = _parse(sys.argv[1:] if arguments is None else arguments)
        command.run(command)
        sys.stdout.flush()
    except (InvalidIndex, InvalidModulus, InvalidSetting) as error:
        return _fail(str(error), 2)
    except LogError as error:
        return _fail(f"{error}{_remedy(error)}", 1)
    except (Failure, IndexTooLarge, StoreError, Unavailable) as error:
        return _fail(str(error), 1)
    except OutcomeUnknown as error:
        return _fail(f"{error}; whether it has changed, ask with `current`", 1)
    except OSError as error:
        # Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # whoever read has seen enough
            return 1
        what = error.filename or "cannot write the answer"
        moved = "; the step was made: see `current`" if getattr(command, "moved", False) else ""
        return _fail(f"{what}: {error.strerror}{moved}", 1)
    except MemoryError:
        return _fail("there is not enough memory for terms as large as these", 1)
    except KeyboardInterrupt:
        return 130
    return 0


def _remedy(error: LogError) -> str:
    """Return what to run about the error, to append to its message."""
    if isinstance(error, Unusable):
        return "; name another file with --file"
    if isinstance(error, (Damaged, Unreadable)):
        path = shlex.quote(str(error.path))
        return f"; see what can be saved with `bigfib log repair -f {path}`"
    return ""


def _open_closed_streams() -> None:
    """Open what was closed of stdin, stdout and stderr.

    The next file opened, the state log, would take the place of stderr, and messages go into it.
    """
    if sys.stdin is None:
        sys.stdin = open(os.devnull)  # noqa: PTH123, SIM115 - for good
    if sys.stdout is None:
        # An answer that nobody gets is a failure; this cannot be written to.
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115 - for good


def _drop_unwritten_messages() -> None:
    """Drop what stderr does not take: Python would try again at exit, and exit with 120."""
    try:
        sys.stderr.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def _fail(message: str, status: int) -> int:
    # Not printed, for a service may have been told to write JSON.
    _logger.error("%s", message)
    return status


# --- What is asked ---------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong.

    Attributes:
        commands: What reads the rest of each command.
    """

    commands: Mapping[str, argparse.ArgumentParser]

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        # What cannot be written is found out here, and not when Python ends.
        sys.stdout.flush()
        super().exit(status, message)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"bigfib: {message}; see {self.prog} --help\n")


def _parse(arguments: list[str]) -> argparse.Namespace:
    whole = parser()
    return whole.parse_args(_command_first(arguments, whole.commands["serve"], set(whole.commands)))


def parser() -> _Parser:
    """Return all that the command line understands."""
    parser = _Parser(
        prog="bigfib",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"bigfib {bigfib.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], None], meaning: str, *aliases: str
    ) -> argparse.ArgumentParser:
        added: argparse.ArgumentParser = commands.add_parser(
            name, aliases=aliases, help=meaning, description=meaning, allow_abbrev=False
        )
        added.set_defaults(run=run)
        return added

    serve = command("serve", _serve, "Serve over HTTP until SIGTERM or Ctrl-C (the default).")
    _add_settings(serve, *_SERVE_SETTINGS)
    current = command("current", _current, "Print the current term; changes nothing.", "c")
    _add_settings(current, "file", "store")
    following = command("next", _next, "Step forward and print the term.", "n")
    previous = command("previous", _previous, "Step back and print the term.", "p")
    seek = command("seek", _seek, "Put the sequence at a position and print the term.")
    seek.add_argument("position", metavar="POSITION", help="the index of the term, at least 0")
    for stepping in (following, previous):
        stepping.add_argument("--by", default="1", metavar="K", help="make K steps [default: 1]")
    for stepping in (current, following, previous, seek):
        if stepping is not current:
            _add_settings(stepping, "file", "store", "durability")
        _add_url(stepping, "or the sequence of this address")
        stepping.add_argument(
            "-v", "--verbose", action="store_true", help="add position, digits and log on stderr"
        )
        _add_output(stepping)
    create = command("create", _create, "Create a sequence at a service, and print its address.")
    _add_url(create, required=True)
    delete = command("delete", _delete, "Delete the sequence of an address.")
    delete.add_argument("--url", required=True, help="the address, as `create` has printed it")

    term = command("term", _term, "Print F(N) for any N; touches no sequence.")
    term.add_argument("n", metavar="N", help="the index: a whole number, negative ones too")
    kind = term.add_mutually_exclusive_group()
    kind.add_argument("--modulo", metavar="M", help="print F(N) mod M instead, for huge N too")
    kind.add_argument(
        "--summary", action="store_true", help="print digit count and ends only, for huge N too"
    )
    kind.add_argument("--base", type=_base, default=10, help="write it in base 2 to 62")
    row = command("terms", _terms, "Print terms in a row, one a line; touches no sequence.")
    row.add_argument("first", metavar="FROM", help="the index of the first, negative ones too")
    row.add_argument("count", metavar="COUNT", help="how many")
    form = row.add_mutually_exclusive_group()
    form.add_argument("--bfile", action="store_true", help="write the index before each, as OEIS")
    form.add_argument("--json", action="store_true", help="print a JSON document for each")
    for terms_command in (term, row):
        _add_url(terms_command)
        output = terms_command.add_argument(
            "-o",
            "--output",
            type=Path,
            metavar="FILE",
            help="write it to FILE; - is standard output",
        )
        _complete(output, shtab.FILE)
    _add_output(term)

    stores = command(
        "store", lambda _: stores.error("say init or copy"), "Prepare a store, or copy it."
    )
    store_commands = stores.add_subparsers(title="commands", metavar="COMMAND")
    preparing = "Make the tables that it needs; may be done twice."
    init = store_commands.add_parser("init", help=preparing, description=preparing)
    init.set_defaults(run=_store_init)
    _add_settings(init, "store")
    copying = "Carry every sequence from a state log to a database, or back."
    copy = store_commands.add_parser("copy", help=copying, description=copying)
    copy.set_defaults(run=_store_copy)
    source = copy.add_argument("source", metavar="FROM", help="a path, or postgresql://...")
    target = copy.add_argument("target", metavar="TO", help="the other; it has to be empty")
    for end in (source, target):
        _complete(end, shtab.FILE)

    logs = command(
        "log", lambda _: logs.error("say verify, dump, compact or repair"), "Look into a state log."
    )
    log_commands = logs.add_subparsers(title="commands", metavar="COMMAND")
    for name, run, meaning in (
        ("verify", _log_verify, "Check every record; changes nothing."),
        ("dump", _log_dump, "Print every record: offset, id, position, day, durable offset."),
        ("compact", _log_compact, "Write anew what is still true; so does the service by itself."),
        ("repair", _log_repair, "Write beside a damaged log what can be saved of it."),
    ):
        looking = log_commands.add_parser(name, help=meaning, description=meaning)
        looking.set_defaults(run=run)
        _add_settings(looking, "file")
        if run is _log_dump:
            looking.add_argument("--json", action="store_true", help="as JSON, a line for each")

    shown = command("settings", _show_settings, "Show every setting, and where it comes from.")
    _add_settings(shown, *_SERVE_SETTINGS)
    shown.add_argument("--json", action="store_true", help="print a JSON document")
    completion = command("completion", _completion, "Print what a shell completes bigfib by.")
    completion.add_argument("shell", choices=["bash", "zsh", "fish"], help="the shell")
    parser.commands = commands.choices
    return parser


def _command_first(
    arguments: list[str], serve: argparse.ArgumentParser, commands: set[str]
) -> list[str]:
    """Return ``arguments`` with the command in front, also where flags stood before it or none is.

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


def _add_settings(parser: argparse.ArgumentParser, *names: str) -> None:
    """Let the command take these settings, as text: `Settings.resolve` reads them."""
    config = parser.add_argument(
        "--config",
        metavar="FILE",
        help=_help("settings file, in TOML", CONFIG, default_path() or "none"),
    )
    _complete(config, shtab.FILE)
    for setting in dataclasses.fields(Settings):
        if setting.name not in names:
            continue
        default = setting.default
        shown = getattr(default, "value", default)
        options: dict[str, Any] = {"metavar": setting.name.upper()}
        if default is False:
            shown, options = "off", {"action": _Switch}
        elif isinstance(default, Enum):
            options["choices"] = [member.value for member in type(default)]
        added = parser.add_argument(
            *setting.metadata["flags"],
            dest=setting.name,
            help=_help(setting.metadata["meaning"], setting.name, shown),
            **options,
        )
        if setting.name in ("file", "store"):
            _complete(added, shtab.FILE)
        elif setting.name == "cache_dir":
            _complete(added, shtab.DIRECTORY)


def _help(meaning: str, name: str, default: object) -> str:
    text = f"{meaning} [{variable(name)}, default: {default}]"
    # For argparse a % is the beginning of a format.
    return text.replace("%", "%%")


class _Switch(argparse.BooleanOptionalAction):
    """A flag that is given as ``--flag`` or ``--no-flag``, and read as text like the others."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        *more: Any,
        **named: Any,
    ) -> None:
        super().__call__(parser, namespace, *more, **named)
        setattr(namespace, self.dest, "yes" if getattr(namespace, self.dest) else "no")


def _complete(action: argparse.Action, by: Mapping[str, object]) -> None:
    """Let shells complete the value by files or directories."""
    action.complete = by  # type: ignore[attr-defined]  # where shtab looks for it


def _add_url(parser: argparse.ArgumentParser, more: str = "", *, required: bool = False) -> None:
    meaning = f"ask the service at this address, such as http://127.0.0.1:8080 {more}"
    parser.add_argument("--url", required=required, help=meaning.rstrip())


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print a JSON document")
    parser.add_argument(
        "--full", action="store_true", help="print a long term whole on a terminal too"
    )


def _base(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 2 and 2 <= int(text) <= 62:
        return int(text)
    raise argparse.ArgumentTypeError("a base is a number from 2 to 62")


def _settings(command: argparse.Namespace) -> Settings:
    """Return the settings of the command, and warn of variables that are none."""
    _warn_of_unknown_variables()
    return _resolved(command)


def _resolved(command: argparse.Namespace) -> Settings:
    file = settings_file.read(command.config, os.environ)
    return Settings.resolve(vars(command), os.environ, file)


def _warn_of_unknown_variables() -> None:
    for warning in unknown_variables(os.environ):
        _logger.warning("%s", warning)


# --- What is done ----------------------------------------------------------------------------


def _serve(command: argparse.Namespace) -> None:
    from bigfib.server.serve import CannotServe, serve

    settings = _resolved(command)
    logs.configure(settings.log_format)
    _warn_of_unknown_variables()
    try:
        serve(settings)
    except CannotServe as error:
        raise Failure(str(error)) from error


def _current(command: argparse.Namespace) -> None:
    if command.url is not None:
        from bigfib.cli import client

        _show(command, client.current(client.sequence_address(command.url)))
        return
    settings = _settings(command)
    if settings.store:
        position = find_in_database(settings.store, SHARED) or 0
        _show_shared(command, "".join(large_terms.digits(mpz(position))), position)
        return
    if command.file or command.store:
        # Named by a flag it is expected to be there; elsewhere, nobody has stepped yet.
        _require_log(settings.file)
    contents = reader.read(settings.file, synced=True)
    position = contents.position(SHARED)
    _show_shared(command, "".join(large_terms.digits(mpz(position))), position)
    if command.verbose:
        _show_log(settings.file, contents.end, contents.records)


def _next(command: argparse.Namespace) -> None:
    _step(command, "next", 1)


def _previous(command: argparse.Namespace) -> None:
    _step(command, "previous", -1)


def _step(command: argparse.Namespace, way: str, direction: int) -> None:
    by = require_steps(fibonacci.parse_index(command.by))
    if command.url is not None:
        from bigfib.cli import client

        address = client.sequence_address(command.url)
        _show(command, client.step(address, way, by.digits()))
        return
    try:
        _move(command, lambda sequences: sequences.step(SHARED, int(direction * by)))
    except StartOfSequence:
        raise Failure(
            "nothing has changed: there is no term before F(0), the start of the sequence"
        ) from None


def _seek(command: argparse.Namespace) -> None:
    position = parse_position(command.position)
    if command.url is not None:
        from bigfib.cli import client

        address = client.sequence_address(command.url)
        _show(command, client.seek(address, position.digits()))
        return
    _move(command, lambda sequences: sequences.seek(SHARED, int(position)))


def _move(command: argparse.Namespace, move: Callable[[Sequences], Sequence]) -> None:
    """Move the shared sequence of the log or database, and show it."""
    settings = _settings(command)
    if settings.store:
        with closing(open_store(settings, expire=False)) as store:
            sequence = move(_sequences(store))
        _show_shared(command, sequence.pair.digits().decode(), sequence.pair.position)
        return
    with _opened_log(command) as opened:
        sequence = move(_sequences(opened))
        opened.commit(sequence.lsn)
    _show_shared(command, sequence.pair.digits().decode(), sequence.pair.position)
    if command.verbose:
        _show_log(settings.file, opened.end, opened.records)


def _sequences(store: Store) -> Sequences:
    sequences = Sequences(store)
    sequences.pair_at = large_terms.pair
    return sequences


def _create(command: argparse.Namespace) -> None:
    from bigfib.cli import client

    print(client.create(command.url))


def _delete(command: argparse.Namespace) -> None:
    from bigfib.cli import client

    client.delete(command.url)


@contextmanager
def _opened_log(command: argparse.Namespace) -> Iterator[Log]:
    settings = _resolved(command)
    try:
        with open_log(settings, expire=False) as opened:
            yield opened
    except Locked as error:
        way = (
            f"; use --url {shlex.quote(error.owner_url)}"
            if error.owner_url
            else "; try again when it is done"
        )
        raise Failure(f"{error}{way}") from error


def _term(command: argparse.Namespace) -> None:
    n = fibonacci.parse_index(command.n)
    # First the file: who cannot write the answer need not wait for it.
    with answer_to(command.output) as file:
        if command.summary or command.modulo is not None:
            document = _facts(command, n)
            if command.json:
                print_json(document, file)
            elif command.summary:
                print("\n".join(f"{name}: {value}" for name, value in document.items()), file=file)
            else:
                print(shortened(document["residue"], command.full, file), file=file)
            return
        if command.url is None:
            pieces = _computed(command, n)
        else:
            media_type = "application/json" if command.json else "text/plain"
            pieces = large_terms.asked(command.url, n, command.base, media_type)
        if file.isatty() and not command.json:
            pieces = iter([shortened("".join(pieces), command.full, file)])
        for piece in pieces:
            file.write(piece)
        file.write("\n")


def _facts(command: argparse.Namespace, n: mpz) -> dict[str, str]:
    """Return the summary of F(n), or its residue."""
    document: dict[str, str]
    modulus = None if command.summary else terms.parse_modulus(command.modulo)
    if command.url is not None:
        from bigfib.cli import client

        if modulus is None:
            document = client.summary(command.url, n.digits())
        else:
            document = client.residue(command.url, n.digits(), modulus.digits())
    elif modulus is None:
        document = terms.summary(n)
    else:
        residue = fibonacci.residue(n, modulus).digits()
        document = {"n": n.digits(), "modulo": modulus.digits(), "residue": residue}
    return document


def _computed(command: argparse.Namespace, n: mpz) -> Iterator[str]:
    """Yield F(n) in pieces, so that it is held once only, as it is computed here."""
    digits = large_terms.digits(n, command.base)
    if not command.json:
        yield from digits
        return
    size = fibonacci.digit_count(n, command.base).digits()
    yield f'{{"n":"{n.digits()}","digits":"{size}","value":"'
    yield from digits
    yield '"}' if command.base == 10 else f'","base":"{command.base}"}}'


def _terms(command: argparse.Namespace) -> None:
    first, count = fibonacci.parse_index(command.first), fibonacci.parse_index(command.count)
    if count < 1:
        raise InvalidIndex("COUNT is the number of terms, at least 1")
    with answer_to(command.output) as file:
        if command.url is None:
            for piece in large_terms.row(int(first), int(count), _line(command)):
                file.write(piece)
            return
        media_type = "application/x-ndjson" if command.json else "text/plain"
        parameters = {"from": first.digits(), "count": count.digits()}
        if command.bfile:
            parameters["format"] = "bfile"
        from bigfib.cli import client

        for line in client.lines(command.url, media_type, **parameters):
            print(line, file=file)


def _line(command: argparse.Namespace) -> Callable[[int, bytes], str]:
    """Return what writes a line of `terms`."""

    def write(n: int, value: bytes) -> str:
        digits = value.decode()
        if command.json:
            size = str(len(digits.lstrip("-")))
            return f"{as_json({'n': mpz(n).digits(), 'digits': size, 'value': digits})}\n"
        return f"{mpz(n).digits()} {digits}\n" if command.bfile else f"{digits}\n"

    return write


def _store_init(command: argparse.Namespace) -> None:
    settings = _settings(command)
    if not settings.store:
        raise Failure("a state log needs no preparing; name a database with --store")
    try:
        from bigfib.state.postgres import schema
    except ImportError as error:
        raise lacks_driver(error) from error
    made = schema.init(settings.store)
    print(f"version {schema.VERSION}: {'made' if made else 'is there already'}")


def _store_copy(command: argparse.Namespace) -> None:
    source, target = (
        Settings.resolve({"store": text}, {}) for text in (command.source, command.target)
    )
    if bool(source.store) == bool(target.store):
        raise Failure("copy goes from a state log to a database, postgresql://..., or back")
    try:
        from bigfib.state.postgres import copy
    except ImportError as error:
        raise lacks_driver(error) from error
    if target.store:
        _require_log(source.file)
        count = copy.log_to_database(source.file, target.store)
    else:
        count = copy.database_to_log(source.store, target.file)
    print(f"sequences copied and compared: {count}")


def _log_verify(command: argparse.Namespace) -> None:
    path = _existing(command)
    contents = reader.read(path)
    state = "whole"
    if contents.fault:
        state = (
            f"torn: {contents.fault}; the last {contents.size - contents.end} bytes will be cut "
            "off when it is next written to"
        )
    counts = f"records {contents.records}, sequences {len(contents.latest)}"
    print(f"{path}: {counts}, bytes {contents.end}: {state}")


def _log_dump(command: argparse.Namespace) -> None:
    path = _existing(command)
    with reader.opened(path) as records:
        for offset, record in records:
            name = format_id(record.sequence_id)
            position = None if record.position is None else mpz(record.position).digits()
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


def _log_compact(command: argparse.Namespace) -> None:
    path = _existing(command)
    before = path.stat().st_size
    # Not twice, should it be due when it is opened.
    command.rewrite_bytes = str(1 << 40)
    with _opened_log(command) as opened:
        opened.rewrite()
    print(f"{path}: bytes {before} before, {path.stat().st_size} now")


def _log_repair(command: argparse.Namespace) -> None:
    from bigfib.state.files import Held
    from bigfib.state.repair import repair

    path = _existing(command)
    try:
        contents = reader.inspect(path)
    except LogError:
        pass
    else:
        if not contents.fault or contents.fault.promised is None:
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
    if repaired.lost:
        print("A sequence whose last record was there now stands at an earlier position.")
    command_to_paste = shlex.join(["mv", str(repaired.target), str(repaired.source)])
    print(f"Put it in place with: {command_to_paste}")


def _existing(command: argparse.Namespace) -> Path:
    path = _settings(command).file
    _require_log(path)
    return path


def _require_log(path: Path) -> None:
    try:
        path.stat()
    except FileNotFoundError:
        raise Failure(f"there is no state log at {path} yet; name another with --file") from None
    except OSError as error:
        raise Unusable(path, error) from error


def _show_settings(command: argparse.Namespace) -> None:
    _warn_of_unknown_variables()
    file = settings_file.read(command.config, os.environ)
    settings, sources = resolve(vars(command), os.environ, file)
    values: dict[str, str | int] = {}
    for name in _SERVE_SETTINGS:
        try:
            value = getattr(settings, name)
        except InvalidSetting:
            value, sources[name] = "", "default: none without a home directory"
        value = getattr(value, "value", value)  # of an enumeration
        if name == "store":
            value = without_password(value)
        values[name] = value if isinstance(value, int) else str(value)
    rows = [(name, value, sources.get(name, "default")) for name, value in values.items()]
    if command.json:
        print_json({name: {"value": value, "source": source} for name, value, source in rows})
    elif sys.stdout.isatty():
        print_table(("setting", "value", "from"), [(n, _toml(v), source) for n, v, source in rows])
    else:
        # A settings file, in which what has its default is left to it.
        for name, value, source in rows:
            line = f"{name} = {_toml(value)}"
            if source.startswith("default"):
                print(f"# {line}")
            elif "\\ud" in ascii(value):
                print(f"# {line}  # {_comment(source)}; TOML cannot say it: it is no UTF-8")
            else:
                print(f"{line}  # {_comment(source)}")


def _toml(value: str | int) -> str:
    """Write a value as a settings file has it."""
    import json

    # What JSON escapes TOML reads, too.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    """Write a text as a line of a settings file may have it behind a ``#``."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _completion(command: argparse.Namespace) -> None:
    whole = parser()
    # Without a command bigfib serves.
    _add_settings(whole, *_SERVE_SETTINGS)
    print(shtab.complete(whole, command.shell))


# --- What is shown ---------------------------------------------------------------------------


def _show_shared(command: argparse.Namespace, digits: str, position: int) -> None:
    facts = {"position": mpz(position).digits(), "digits": str(len(digits)), "value": digits}
    _show(command, {"id": format_id(SHARED), **facts})


def _show(command: argparse.Namespace, sequence: dict[str, str]) -> None:
    """Print the term of a sequence, which stands there now."""
    command.moved = command.run is not _current
    if command.json:
        print_json(sequence)
    else:
        print(shortened(sequence["value"], command.full, sys.stdout))
    if command.verbose:
        for name in ("position", "digits"):
            print_note(f"{name}: {sequence[name]}")


def _show_log(path: Path, size: int, records: int) -> None:
    print_note(f"log: {path}\nlog bytes: {size}\nlog records: {records}")
