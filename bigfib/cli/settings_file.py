"""Read the settings file, a TOML file with any of the settings.

Its keys are the settings' names, such as ``cache_bytes``; its values are TOML's numbers, booleans
and strings. Sizes and times may be strings with a unit.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import platformdirs

from bigfib.settings import CONFIG, FIELDS, InvalidSetting, SettingsFile, user_path, variable

_MOST_BYTES: Final = 1 << 20


def default_path() -> Path | None:
    """Return the default path of the file, or None without a home directory."""
    return user_path(platformdirs.user_config_path, "bigfib.toml")


def read(named: str | None, environ: Mapping[str, str]) -> SettingsFile | None:
    """Read the file.

    Args:
        named: The path from the command line, if given there.
        environ: The environment, in which ``BIGFIB_CONFIG`` may have the path.

    Returns:
        None if no path is given and there is no file at `default_path`.

    Raises:
        InvalidSetting: The file cannot be read, is not TOML, or has a key that is not a setting.
    """
    if named is None:
        named = environ.get(variable(CONFIG)) or None
    elif not named or "\0" in named:
        raise InvalidSetting("--config: a path must not be empty or contain NUL")
    path = default_path() if named is None else Path(named)
    if path is None:
        return None
    try:
        path = path.expanduser()
        document = _parse(_content(path).decode("utf-8-sig"))
        return SettingsFile(path, {name: _text(path, name, document[name]) for name in document})
    except FileNotFoundError:
        if named is None:
            return None
        raise InvalidSetting(f"there is no settings file at {path}") from None
    except OSError as error:
        raise InvalidSetting(
            f"cannot read the settings file {path}: {error.strerror}; name another with --config "
            "or BIGFIB_CONFIG (/dev/null for none)"
        ) from None
    except InvalidSetting:
        raise
    except UnicodeDecodeError as error:
        raise InvalidSetting(
            f"settings file {path}: it is not UTF-8, from byte {error.start} on"
        ) from None
    except (ValueError, RecursionError, RuntimeError) as error:
        raise InvalidSetting(f"settings file {path}: {error}".replace("\n", " ")) from None


def _content(path: Path) -> bytes:
    # Read a bounded number of bytes: the file may be a pipe, or endless.
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise InvalidSetting(f"settings file {path}: it is longer than {_MOST_BYTES} bytes")
    return content


def _parse(text: str) -> dict[str, Any]:
    # Imported here: most commands have no settings file.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(text)


def _text(path: Path, name: str, value: Any) -> str:
    """Return the value as text for the parser of the setting ``name``."""
    if name not in FIELDS:
        raise InvalidSetting(f"{path}: {name!r:.60} is no setting; `bigfib settings` lists them")
    setting = FIELDS[name]
    default = setting.default
    if isinstance(default, bool):
        fits, meaning = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        fits, meaning = type(value) is int, "a number, without quotes"
        if setting.metadata["parse"].units:
            fits = fits or isinstance(value, str)
            meaning = 'a number, or a string with a unit, such as "64MiB" or "90d"'
    else:
        fits, meaning = isinstance(value, str), "a string, in quotes"
    if not fits:
        raise InvalidSetting(f"{path}: {name} must be {meaning}")
    return str(value).lower() if isinstance(value, bool) else str(value)
