"""Define the commands of stores: ``store init`` and ``store copy``."""

import argparse
from typing import TYPE_CHECKING

from bigfib.cli.arguments import add_command, add_group, add_settings, complete, settings_of
from bigfib.cli.log_commands import require_log
from bigfib.cli.output import Failure
from bigfib.settings import resolve

if TYPE_CHECKING:
    from bigfib.cli.arguments import Commands


def add_to(commands: "Commands") -> None:
    """Add the commands."""
    group = add_group(
        commands, "store", "Prepare a database to be a store, or copy a store.", "init or copy"
    )
    init = add_command(
        group, "init", _init, "Create the tables in a database; does nothing if they exist."
    )
    add_settings(init, "store")
    copy = add_command(
        group, "copy", _copy, "Copy every sequence from a state log to a database, or back."
    )
    source = copy.add_argument("source", metavar="FROM", help="a path, or postgresql://...")
    target = copy.add_argument("target", metavar="TO", help="a store of the other kind, empty")
    for end in (source, target):
        complete(end, "FILE")


def _init(command: argparse.Namespace) -> None:
    settings = settings_of(command)
    if not settings.store:
        raise Failure("a state log needs no preparation; name a database with --store")
    from bigfib.state.postgres import schema

    print(f"version {schema.VERSION}: {schema.init(settings.store)}")


def _copy(command: argparse.Namespace) -> None:
    source, target = (resolve({"store": text}, {})[0] for text in (command.source, command.target))
    if bool(source.store) == bool(target.store):
        raise Failure("name a state log and a database (postgresql://...), in either order")
    from bigfib.state.postgres import copy

    if target.store:
        require_log(source.file)
        count = copy.log_to_database(source.file, target.store)
    else:
        count = copy.database_to_log(source.store, target.file)
    print(f"sequences copied and compared: {count}")
