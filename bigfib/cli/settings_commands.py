"""Define the command ``settings``, which shows every setting and its source."""

import argparse
import sys
from typing import TYPE_CHECKING

from bigfib.cli.arguments import (
    add_command,
    add_settings,
    settings_and_sources,
    warn_of_unknown_variables,
)
from bigfib.cli.output import print_json, print_table
from bigfib.settings import FIELDS, InvalidSetting, without_password

if TYPE_CHECKING:
    from bigfib.cli.arguments import Commands


def add_to(commands: "Commands") -> None:
    """Add the command."""
    shown = add_command(
        commands, "settings", _settings, "Show every setting, its value and its source."
    )
    add_settings(shown)
    shown.add_argument("--json", action="store_true", help="print a JSON document")


def _settings(command: argparse.Namespace) -> None:
    warn_of_unknown_variables()
    found = rows(command)
    if command.json:
        print_json({name: {"value": value, "source": source} for name, value, source in found})
    elif sys.stdout.isatty():
        print_table(
            ("setting", "value", "from"), *((n, _toml(v), source) for n, v, source in found)
        )
    else:
        # A settings file, in which settings with their defaults are commented out.
        for name, value, source in found:
            line = f"{name} = {_toml(value)}"
            if source.startswith("default"):
                print(f"# {line}")
            elif "\\ud" in ascii(value):
                print(f"# {line}  # {_comment(source)}; TOML cannot hold it: it is not UTF-8")
            else:
                print(f"{line}  # {_comment(source)}")


def rows(command: argparse.Namespace) -> list[tuple[str, str | int, str]]:
    """Return name, value and source of each setting."""
    settings, sources = settings_and_sources(command)
    found: list[tuple[str, str | int, str]] = []
    for name in FIELDS:
        source = sources.get(name, "default")
        try:
            value = getattr(settings, name)
        except InvalidSetting:
            value, source = "", "default: none without a home directory"
        value = getattr(value, "value", value)  # of an enumeration
        if name == "store":
            value = without_password(value)
        found.append((name, value if isinstance(value, int) else str(value), source))
    return found


def _toml(value: str | int) -> str:
    """Return the value as TOML."""
    import json

    # TOML reads all escapes of JSON.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comment(text: str) -> str:
    """Return the text with ? for characters that a TOML comment may not have."""
    return "".join(character if character.isprintable() else "?" for character in text)
