"""Add arguments that commands share: settings, the address of a service, the output form."""

import argparse
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

_logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from bigfib.settings import Settings

    Commands = argparse._SubParsersAction[Any]


def add_command(
    commands: "Commands",
    name: str,
    run: Callable[[argparse.Namespace], int | None],
    meaning: str,
    *aliases: str,
) -> argparse.ArgumentParser:
    """Add a command that calls ``run`` with its arguments; ``run`` may return an exit status."""
    added: argparse.ArgumentParser = commands.add_parser(
        name, aliases=aliases, help=meaning, description=meaning, allow_abbrev=False
    )
    added.set_defaults(run=run)
    return added


def add_group(commands: "Commands", name: str, meaning: str, names: str) -> "Commands":
    """Add a command with subcommands, which ``names`` lists for the error message."""
    group = add_command(commands, name, lambda _: group.error(f"give a command: {names}"), meaning)
    return group.add_subparsers(title="commands", metavar="COMMAND")


def add_settings(parser: argparse.ArgumentParser, *names: str) -> None:
    """Add flags for the settings ``names`` (default: all) and for the settings file.

    Their values stay text, which `settings.resolve` parses.
    """
    # Imported here and below: commands without settings start in two thirds of the time.
    from bigfib.cli import settings_file
    from bigfib.settings import CONFIG, FIELDS, variable

    def described(meaning: str, name: str, default: object) -> str:
        shown = "none" if default == "" else default
        text = f"{meaning} [{variable(name)}, default: {shown}]"
        # argparse would expand a bare %.
        return text.replace("%", "%%")

    config = parser.add_argument(
        "--config",
        metavar="FILE",
        help=described("settings file, in TOML", CONFIG, settings_file.default_path() or "none"),
    )
    complete(config, "FILE")
    for name in names or FIELDS:
        setting = FIELDS[name]
        default = setting.default
        shown = getattr(default, "value", default)
        options: dict[str, Any] = {"metavar": name.upper()}
        if default is False:
            shown, options = "off", {"action": _Switch}
        elif isinstance(default, Enum):
            options["choices"] = [member.value for member in type(default)]
        added = parser.add_argument(
            *setting.metadata["flags"].split(),
            dest=name,
            help=described(setting.metadata["meaning"], name, shown),
            **options,
        )
        if name in ("file", "store"):
            complete(added, "FILE")
        elif name == "cache_dir":
            complete(added, "DIRECTORY")


class _Switch(argparse.BooleanOptionalAction):
    """Store ``--flag`` and ``--no-flag`` as text, like the values of other settings."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        *more: Any,
        **named: Any,
    ) -> None:
        super().__call__(parser, namespace, *more, **named)
        setattr(namespace, self.dest, "yes" if getattr(namespace, self.dest) else "no")


def complete(action: argparse.Action, kind: str) -> None:
    """Let shells complete the value; ``kind`` is ``FILE`` or ``DIRECTORY``, as in shtab."""
    action.completes = kind  # type: ignore[attr-defined]  # read by `main`


def add_url(parser: argparse.ArgumentParser, more: str = "", *, required: bool = False) -> None:
    """Add ``--url``, the address of a service."""
    meaning = f"ask the service at this address, such as http://127.0.0.1:8080 {more}"
    parser.add_argument("--url", required=required, help=meaning.rstrip())


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the flags for the form in which a term is printed."""
    parser.add_argument("--json", action="store_true", help="print a JSON document")
    parser.add_argument(
        "--full", action="store_true", help="print all digits of a long term on a terminal, too"
    )
    parser.add_argument(
        "--group", action="store_true", help="group the digits by commas (not in JSON)"
    )


def as_people_write(text: str) -> str:
    """Return the canonical form of a number such as 1e6 or 1,000,000; other text unchanged."""
    from bigfib.numbers import notation

    return notation.read(text) or text


def settings_of(command: argparse.Namespace, *, warn: bool = True) -> "Settings":
    """Return the settings of the command, and log unknown variables if ``warn``."""
    if warn:
        warn_of_unknown_variables()
    return settings_and_sources(command)[0]


def settings_and_sources(command: argparse.Namespace) -> "tuple[Settings, dict[str, str]]":
    """Return the settings of the command, and their sources as `settings.resolve`."""
    from bigfib.cli import settings_file
    from bigfib.settings import resolve

    file = settings_file.read(command.config, os.environ)
    return resolve(vars(command), os.environ, file)


def warn_of_unknown_variables() -> None:
    """Log a warning for each ``BIGFIB_*`` variable that is not a setting."""
    for warning in unknown_variables(os.environ):
        _logger.warning("%s", warning)


def unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for each ``BIGFIB_*`` variable that is set but is not a setting."""
    from bigfib.settings import CONFIG, FIELDS, variable

    known = [variable(name) for name in (*FIELDS, CONFIG)]
    for name, value in sorted(environ.items()):
        if name.startswith(variable("")) and value and name not in known:
            import difflib

            close = difflib.get_close_matches(name, known, 1, 0.8)
            advice = f"did you mean {close[0]}?" if close else "see `bigfib settings`"
            yield f"the variable {name!r:.60} is no setting and is ignored; {advice}"
