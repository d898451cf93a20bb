"""Define every setting: its flags, ``BIGFIB_*`` variable, default and meaning.

A flag overrides the variable, the variable the settings file, and the file the default. The same
function parses all three, so they are refused with the same message; except that argparse itself
checks flags with a few fixed values.
"""

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple

import platformdirs

from bigfib.numbers.fibonacci import MAX_INDEX

REWRITE_BYTES: Final = 1 << 20
"""Default of ``rewrite_bytes``: a log of 50 thousand records, which is read in less than 0.1 s."""

CACHE_BYTES: Final = 64 << 20
"""Default of ``cache_bytes``: 80 thousand sequences at small terms, 500 at 20 thousand digits."""

MAX_SEQUENCES: Final = 1_000_000
"""Default of ``max_sequences``: a service with as many takes 152 MB."""

MAX_TERM: Final = 100_000_000
"""Default of ``max_term``: 21 million digits, computed in 2 s on two cores with 105 MB."""

DISK_CACHE_BYTES: Final = 1 << 30
"""Default of ``disk_cache_bytes``: fifty terms at ``MAX_TERM``."""

CONFIG: Final = "config"
"""Name of the setting that names the settings file."""

# libpq's other form of a connection string, `host=h password=p`.
_KEYWORD: Final = re.compile(r"\s*\w+\s*=")
_SLASH_BEFORE_AT: Final = re.compile("[a-z]+://[^/?]*/[^?]*@")
_CREDENTIALS: Final = re.compile("://(.*)@", re.DOTALL)
_PARAMETER: Final = re.compile("([?&])([^=&?]*)=[^&]*")


class Durability(str, Enum):
    """What an acknowledged step survives."""

    FSYNC = "fsync"
    """Power loss: it is on disk."""

    OS = "os"
    """The end of the process, but not of the operating system."""


class LogFormat(str, Enum):
    """How messages on standard error are written."""

    TEXT = "text"
    """A line for people."""

    JSON = "json"
    """A line for programs."""


class InvalidSetting(ValueError):
    """A setting has an invalid value; the message says which are valid."""


def _port(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 65535:
        return int(text)
    raise ValueError("a port is a number from 0 to 65535 (0 takes any free one)")


def _whole(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 18:
        return int(text)
    raise ValueError("it is a whole number, in digits")


def _index(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text[:12]) <= MAX_INDEX and len(text) <= 12:
        return int(text)
    raise ValueError(f"the largest term is a number from 0 to {MAX_INDEX}")


def _days(text: str) -> int:
    if text.isascii() and text.isdecimal() and int(text[:8]) >= 1 and len(text) <= 6:
        return int(text)
    raise ValueError("a time to live is a number of days, at least 1")


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError("a path is not empty, and has no NUL in it")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("there is no such home directory") from None


def _store(text: str) -> str:
    if text.startswith(("postgresql://", "postgres://")) and "\0" not in text:
        # libpq would take the beginning of the password for a port, and quote it.
        if _SLASH_BEFORE_AT.match(text):
            raise ValueError("in a user's name or password a / is written %2F, in others an @ %40")
        return text
    if not text or "://" in text or _KEYWORD.match(text):
        raise ValueError("a store is the path of a state log, or postgresql://...")
    return str(_path(text))


def _workers(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 3 and int(text) >= 1:
        return int(text)
    raise ValueError("workers are a number from 1 to 999")


def _durability(text: str) -> Durability:
    try:
        return Durability(text)
    except ValueError:
        raise ValueError("durability is fsync or os") from None


def _log_format(text: str) -> LogFormat:
    try:
        return LogFormat(text)
    except ValueError:
        raise ValueError("the log's format is text or json") from None


def _switch(text: str) -> bool:
    switches = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    try:
        return switches[text.lower()]
    except KeyError:
        raise ValueError("a switch is 1, true, yes, 0, false or no") from None


def user_path(find: Callable[[str], Path], name: str) -> Path | None:
    """Return the path of ``name`` in a user directory, or None without a home directory.

    Args:
        find: The function of platformdirs that returns the directory.
        name: The name of the file in it.
    """
    try:
        directory = find("bigfib")
    except RuntimeError:
        return None
    # If HOME is not absolute, some versions of platformdirs return a path relative to the cwd.
    return directory / name if directory.is_absolute() else None


class _UserPath:
    """Look up the default of a path when it is read: with a path given no home is needed."""

    def __init__(self, find: Callable[[str], Path], name: str = "") -> None:
        self._find = find
        self._file = name
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __set__(self, settings: object, value: "Path | _UserPath") -> None:
        vars(settings)[self._name] = value

    def __get__(self, settings: object, owner: type) -> Any:
        given = vars(settings)[self._name]
        if given is not self:
            return given
        path = user_path(self._find, self._file)
        if path is None:
            raise InvalidSetting(
                f"there is no home directory, where {flag(self._name)} has its default; give "
                f"{flag(self._name)} or {variable(self._name)}"
            )
        return path

    def __str__(self) -> str:
        return str(user_path(self._find, self._file) or "none without a home directory")


def _setting(default: Any, meaning: str, *flags: str, parse: Callable[[str], Any]) -> Any:
    return field(default=default, metadata={"flags": flags, "meaning": meaning, "parse": parse})


@dataclass(frozen=True)
class Settings:
    """The settings of a service or command, with valid values.

    ``store`` is the URL of a database, or empty if positions are kept in the state log ``file``.
    """

    port: int = _setting(8080, "port to listen on", "-p", "--port", parse=_port)
    host: str = _setting("127.0.0.1", "address or name to listen on", "--host", parse=str)
    file: Path = _setting(
        _UserPath(platformdirs.user_state_path, "state.log"),
        *("state log, which keeps the position of every sequence", "-f", "--file"),
        parse=_path,
    )
    store: str = _setting(
        "",
        "where positions are kept: the path of a state log, as with --file, or a database that "
        "services share, postgresql://USER@HOST,HOST/DATABASE as in libpq",
        "--store",
        parse=_store,
    )
    durability: Durability = _setting(
        Durability.FSYNC,
        "what an acknowledged step survives: fsync, power loss; os, the end of the process only",
        *("--durability",),
        parse=_durability,
    )
    rewrite_bytes: int = _setting(
        REWRITE_BYTES,
        "size in bytes from which the state log is compacted when most of it is out of date; a log "
        "of the default size is read in less than 0.1 s",
        *("--rewrite-bytes",),
        parse=_whole,
    )
    sequence_ttl: int = _setting(
        90,
        "days after which a sequence that is not stepped may be deleted; never the shared one",
        *("--sequence-ttl",),
        parse=_days,
    )
    max_sequences: int = _setting(
        MAX_SEQUENCES,
        "maximum number of sequences, not counting the shared one",
        "--max-sequences",
        parse=_whole,
    )
    cache_bytes: int = _setting(
        CACHE_BYTES,
        "bytes of memory for the terms of recently used sequences; others are computed on request",
        *("--cache-bytes",),
        parse=_whole,
    )
    max_term: int = _setting(
        MAX_TERM,
        "largest N whose term is computed over HTTP; large ones in the background",
        *("--max-term",),
        parse=_index,
    )
    cache_dir: Path = _setting(
        _UserPath(platformdirs.user_cache_path),
        "directory for the digits of large terms; services may share it",
        "--cache-dir",
        parse=_path,
    )
    disk_cache_bytes: int = _setting(
        DISK_CACHE_BYTES,
        "maximum size of that directory in bytes; the least recently used terms are deleted",
        "--disk-cache-bytes",
        parse=_whole,
    )
    per_client: bool = _setting(
        False, "give each client its own sequence, by a cookie", "--per-client", parse=_switch
    )
    workers: int = _setting(
        1,
        "number of processes that serve on the port; they need a shared store",
        "--workers",
        parse=_workers,
    )
    one_cpu: bool = _setting(
        False, "run on one CPU; each worker on its own", "-t", "--one-cpu", parse=_switch
    )
    access_log: bool = _setting(
        False, "log every request to standard error", "--access-log", parse=_switch
    )
    debug: bool = _setting(False, "the same as --access-log", "-d", "--debug", parse=_switch)
    log_format: LogFormat = _setting(
        LogFormat.TEXT,
        "format of messages on standard error: text, for people; json, a document a line",
        "--log-format",
        parse=_log_format,
    )

    @classmethod
    def resolve(
        cls,
        flags: Mapping[str, str | None],
        environ: Mapping[str, str],
        file: "SettingsFile | None" = None,
    ) -> "Settings":
        """Combine flags, variables, settings file and defaults.

        Args:
            flags: Values of flags by field name; None or absent for those not given.
            environ: The environment.
            file: The content of the settings file.

        Raises:
            InvalidSetting: A text is not a valid value of its setting.
        """
        return resolve(flags, environ, file)[0]


class SettingsFile(NamedTuple):
    """The content of a settings file.

    Attributes:
        path: Its path.
        values: The text of each setting in it, by field name.
    """

    path: Path
    values: Mapping[str, str]


def resolve(
    flags: Mapping[str, str | None], environ: Mapping[str, str], file: SettingsFile | None = None
) -> tuple[Settings, dict[str, str]]:
    """Return the settings, as `Settings.resolve`, and the source of each by field name.

    A source is the flag, the variable or the path of the file; settings with their default have
    none. An empty variable counts as unset.
    """
    names = [setting.name for setting in dataclasses.fields(Settings)]
    layers = [
        {n: (flag(n), text) for n in names if (text := flags.get(n)) is not None},
        {n: (variable(n), text) for n in names if (text := environ.get(variable(n)))},
        {n: (f"{file.path}: {n}", text) for n, text in file.values.items()} if file else {},
    ]
    given: dict[str, tuple[str, str]] = {}
    for layer in layers:
        # Both name the store, so either of them overrides both in a later layer.
        if {"file", "store"} & given.keys():
            layer = {n: layer[n] for n in layer if n not in ("file", "store")}
        elif {"file", "store"} <= layer.keys():
            raise InvalidSetting(
                f"{layer['file'][0]} and {layer['store'][0]} both say where positions are kept; "
                "give one"
            )
        given |= {n: layer[n] for n in layer if n not in given}
    parsers = {setting.name: setting.metadata["parse"] for setting in dataclasses.fields(Settings)}
    values = {}
    for name, (origin, text) in given.items():
        try:
            values[name] = parsers[name](text)
        except ValueError as error:
            raise InvalidSetting(f"{origin} {without_password(text)!r:.60}: {error}") from None
    sources = {name: origin.removesuffix(f": {name}") for name, (origin, _) in given.items()}
    if values.get("store") and "://" not in values["store"]:
        values["file"], sources["file"] = Path(values.pop("store")), sources.pop("store")
    return Settings(**values), sources


def without_password(store: str) -> str:
    """Return the connection string with its secrets replaced by ``***``.

    An invalid one may have its password anywhere. Too much is hidden rather than too little: all up
    to the last ``@``, except a user's name at the beginning.
    """
    if _KEYWORD.match(store):
        return f"{store.partition('=')[0]}=***"
    hidden = _CREDENTIALS.sub(_hide_password, store)
    return _PARAMETER.sub(_hide_secret, hidden)


def _hide_password(found: re.Match[str]) -> str:
    user, colon, _ = found[1].partition(":")
    return f"://{user}:***@" if colon else found[0]


def _hide_secret(found: re.Match[str]) -> str:
    from urllib.parse import unquote

    key = unquote(found[2]).lower()
    return f"{found[1]}{found[2]}=***" if "password" in key or "secret" in key else found[0]


def flag(name: str) -> str:
    """Return the long flag of the setting ``name``."""
    return next(
        str(setting.metadata["flags"][-1])
        for setting in dataclasses.fields(Settings)
        if setting.name == name
    )


def variable(name: str) -> str:
    """Return the environment variable of the setting ``name``."""
    return f"BIGFIB_{name.upper()}"


def unknown_variables(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for each ``BIGFIB_*`` variable that is set but is not a setting."""
    known = [variable(name) for name in (*(s.name for s in dataclasses.fields(Settings)), CONFIG)]
    for name, value in sorted(environ.items()):
        if name.startswith(variable("")) and value and name not in known:
            import difflib

            close = difflib.get_close_matches(name, known, 1, 0.8)
            advice = f"did you mean {close[0]}?" if close else "see `bigfib settings`"
            yield f"the variable {name!r:.60} is no setting and is ignored; {advice}"
