"""Define the commands that read, move, create and delete a sequence."""

import argparse
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gmpy2 import mpz

from bigfib.cli import large_terms
from bigfib.cli.arguments import (
    add_command,
    add_output,
    add_settings,
    add_url,
    as_people_write,
    settings_of,
)
from bigfib.cli.log_commands import explain_lock, require_log
from bigfib.cli.output import Failure, print_json, print_note, shortened
from bigfib.numbers.decimals import StartOfSequence
from bigfib.numbers.fibonacci import parse_index, require_steps
from bigfib.sequences import SHARED, format_id, parse_position

if TYPE_CHECKING:
    from bigfib.cli.arguments import Commands
    from bigfib.client import Client, Sequence
    from bigfib.numbers.decimals import DecimalPair
    from bigfib.sequences import Sequences

# The path of a sequence's address, before its id.
_SEQUENCES: Final = "/api1/sequences/"


def add_to(commands: "Commands") -> None:
    """Add the commands."""
    current = add_command(
        commands, "current", _current, "Print the current term; changes nothing.", "c"
    )
    _add_arguments(current, "file", "store")
    following = add_command(commands, "next", _next, "Step forward and print the term.", "n")
    previous = add_command(commands, "previous", _previous, "Step back and print the term.", "p")
    seek = add_command(
        commands, "seek", _seek, "Move the sequence to a position and print the term."
    )
    seek.add_argument("position", metavar="POSITION", help="the index of the term, at least 0")
    for stepping in (following, previous):
        stepping.add_argument("--by", default="1", metavar="K", help="make K steps [default: 1]")
    for changing in (following, previous, seek):
        _add_arguments(changing, "file", "store", "durability")
    create = add_command(
        commands, "create", _create, "Create a sequence at a service and print its address."
    )
    add_url(create, required=True)
    delete = add_command(commands, "delete", _delete, "Delete the sequence at an address.")
    delete.add_argument("--url", required=True, help="the address that `create` printed")


def _add_arguments(parser: argparse.ArgumentParser, *settings: str) -> None:
    add_settings(parser, *settings)
    add_url(parser, "(or a sequence's address)")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="print position, digits and log on stderr, too"
    )
    add_output(parser)


def _current(command: argparse.Namespace) -> None:
    if command.url is not None:
        client, sequence_id = _client(command.url)
        _show_sequence(command, client.sequence(sequence_id))
        return
    settings = settings_of(command)
    if settings.store:
        from bigfib.state.postgres.lookup import find

        position = find(settings.store, SHARED) or 0
    else:
        if command.file or command.store:
            # A log named by a flag must exist; if the default log is missing, nothing was stepped.
            require_log(settings.file)
        from bigfib.state import reader

        contents = reader.read(settings.file, synced=True)
        position = contents.position(SHARED)
    _show_shared(command, "".join(large_terms.digits(mpz(position))), position)
    if command.verbose and not settings.store:
        _show_log(settings.file, contents.end, contents.records)


def _next(command: argparse.Namespace) -> None:
    _step(command, 1)


def _previous(command: argparse.Namespace) -> None:
    _step(command, -1)


def _step(command: argparse.Namespace, direction: int) -> None:
    by = require_steps(parse_index(as_people_write(command.by)))
    if command.url is not None:
        client, sequence_id = _client(command.url)
        _show_sequence(command, client.step(sequence_id, direction * by))
        return
    try:
        _move(command, lambda sequences: sequences.step(SHARED, int(direction * by)))
    except StartOfSequence:
        raise Failure(
            "nothing has changed: there is no term before F(0), the start of the sequence"
        ) from None


def _seek(command: argparse.Namespace) -> None:
    position = parse_position(as_people_write(command.position))
    if command.url is not None:
        client, sequence_id = _client(command.url)
        _show_sequence(command, client.seek(sequence_id, position))
        return
    _move(command, lambda sequences: sequences.seek(SHARED, int(position)))


def _move(command: argparse.Namespace, move: "Callable[[Sequences], DecimalPair]") -> None:
    """Move the shared sequence of the log or database, and print its term."""
    from bigfib.sequences import Sequences
    from bigfib.stores import open_store

    settings = settings_of(command)
    with explain_lock(), closing(open_store(settings, expire=False).store) as store:
        pair = move(Sequences(store, pair_at=large_terms.pair))
        store.commit()
        # From memory: the step is made, even if the log cannot be read again.
        log = store.log_facts()
    _show_shared(command, pair.digits().decode(), pair.position)
    if command.verbose and log:
        _show_log(settings.file, log.size, log.records)


def _create(command: argparse.Namespace) -> None:
    client, _ = _client(command.url)
    print(client.address(client.create().id))


def _delete(command: argparse.Namespace) -> None:
    if _SEQUENCES not in command.url:
        raise Failure(f"{command.url} is not the address of a sequence, as `create` prints it")
    client, sequence_id = _client(command.url)
    client.delete(sequence_id)


def _client(url: str) -> "tuple[Client, str]":
    """Return the client of the service at ``url``, and the id of the sequence if it has one."""
    from bigfib.client import Client

    service, _, sequence_id = url.rstrip("/").partition(_SEQUENCES)
    return Client(service), sequence_id or format_id(SHARED)


def _show_shared(command: argparse.Namespace, digits: str, position: int) -> None:
    _show(command, format_id(SHARED), position, digits)


def _show_sequence(command: argparse.Namespace, sequence: "Sequence") -> None:
    _show(command, sequence.id, sequence.position, sequence.value)


def _show(command: argparse.Namespace, sequence_id: str, position: int, value: str) -> None:
    """Print the term of a sequence, which the command has moved unless it is `current`."""
    command.moved = command.run is not _current
    facts = {"position": str(position), "digits": str(len(value))}
    if command.json:
        print_json({"id": sequence_id, **facts, "value": value})
    else:
        print(shortened(value, command.full, command.group))
    if command.verbose:
        for name, fact in facts.items():
            print_note(f"{name}: {fact}")


def _show_log(path: Path, size: int, records: int) -> None:
    print_note(f"log: {path}\nlog bytes: {size}\nlog records: {records}")
