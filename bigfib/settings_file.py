"""The settings file: any of the settings, as TOML.

Its keys are the settings' names, such as ``cache_bytes``; numbers, switches and texts are TOML's.
"""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import platformdirs

from bigfib.settings import InvalidSetting, Settings, SettingsFile, variable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

CONFIG = "config"
"""The flag and variable that name the file."""


def default_path() -> Path:
    """Return where the file is looked for when nobody names it."""
    return platformdirs.user_config_path("bigfib") / "bigfib.toml"


def read(named: str | None, environ: Mapping[str, str]) -> SettingsFile | None:
    """Return what the file says.

    Args:
        named: The path that the command line gives.
        environ: The environment, where ``BIGFIB_CONFIG`` may give it.

    Returns:
        None, if nobody names one and there is none at `default_path`.

    Raises:
        InvalidSetting: it cannot be read, is no TOML, or has what is no setting.
    """
    named = environ.get(variable(CONFIG)) if named is None else named
    path = default_path() if named is None else Path(named)
    try:
        path = path.expanduser()
        content = path.read_bytes().decode()
        document = tomllib.loads(content)
    except FileNotFoundError:
        if named is None:
            return None
        raise InvalidSetting(f"there is no settings file at {path}") from None
    except OSError as error:
        raise InvalidSetting(f"cannot read the settings file {path}: {error.strerror}") from None
    except (ValueError, RecursionError, RuntimeError) as error:
        raise InvalidSetting(f"settings file {path}: {error}".replace("\n", " ")) from None
    return SettingsFile(path, {name: _text(path, name, document[name]) for name in document})


def _text(path: Path, name: str, value: Any) -> str:
    """Return the text that the parser of the setting ``name`` reads."""
    for setting in dataclasses.fields(Settings):
        if setting.name == name:
            break
    else:
        raise InvalidSetting(
            f"{path}: {name!r:.60} is no setting; `bigfib settings` shows which there are"
        )
    default = setting.default
    if isinstance(default, bool):
        fits, meaning = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        fits, meaning = type(value) is int, "a number, without quotes"
    else:
        fits, meaning = isinstance(value, str), "a text, in quotes"
    if not fits:
        raise InvalidSetting(f"{path}: {name} is {meaning}")
    return str(value).lower() if isinstance(value, bool) else str(value)
