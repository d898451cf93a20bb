"""Define every setting: its flags, ``BIGFIB_*`` variable, default and meaning.

A flag overrides the variable, the variable the settings file, and the file the default. The same
function parses all three, so that an invalid value gets the same message from each. The exception
are flags with a few fixed values, which argparse checks.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final, NamedTuple

import platformdirs

from bigfib.numbers.fibonacci import MAX_INDEX

# The state log has this and `Durability`, too, and a test compares them. To import it here would
# delay commands that open none.
REWRITE_BYTES: Final = 1 << 20
"""Default of ``rewrite_bytes``: a log of 50 thousand records, which is read in less than 0.1 s."""

CONFIG: Final = "config"
"""Name of the setting that names the settings file."""

# libpq's other form of a connection string, `host=h password=p`.
_KEYWORD: Final = re.compile(r"\s*\w+\s*=")
_SLASH_BEFORE_AT: Final = re.compile("[a-z]+://[^/?]*/[^?]*@")
_CREDENTIALS: Final = re.compile("://(.*)@", re.DOTALL)
_PARAMETER: Final = re.compile("([?&])([^=&?]*)=[^&]*")


class Durability(str, Enum):
    """What an acknowledged step survives: power loss too, or only the end of the process."""

    FSYNC = "fsync"
    OS = "os"


class LogFormat(str, Enum):
    """The format of messages on standard error."""

    TEXT = "text"
    JSON = "json"


class InvalidSetting(ValueError):
    """A setting has an invalid value; the message says which are valid."""


@dataclass(frozen=True)
class Number:
    """Parse whole numbers from ``least`` to ``most``; refuse others with the message ``meaning``.

    Attributes:
        units: The factor of each unit that may follow the digits, in lower case.
    """

    least: int
    most: int
    meaning: str
    units: Mapping[str, int] = field(default_factory=dict)

    def __call__(self, text: str) -> int:
        """Return the number; raise ValueError if ``text`` is not valid."""
        # At most 18 digits: converting thousands takes long.
        if found := re.fullmatch("([0-9]{1,18}) ?([A-Za-z]*)", text):
            factor = {"": 1, **self.units}.get(found[2].lower(), 0)
            number = int(found[1]) * factor
            if factor and self.least <= number <= self.most:
                return number
        raise ValueError(self.meaning)


_size: Final = Number(
    0,
    10**18,
    "a size is a whole number of bytes, or one with a unit: kB, MB, GB, KiB, MiB or GiB",
    {"kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30},
)


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError("a path must not be empty or contain NUL")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise ValueError("there is no such home directory") from None


def _store(text: str) -> str:
    if text.startswith(("postgresql://", "postgres://")) and "\0" not in text:
        # libpq would read the beginning of the password as a port, and quote it in its error.
        if _SLASH_BEFORE_AT.match(text):
            raise ValueError("write / in a user's name or password as %2F, and @ elsewhere as %40")
        return text
    if not text or "\0" in text or ("://" in text and not _KEYWORD.match(text)):
        raise ValueError("a store is the path of a state log, or postgresql://...")
    return text if _KEYWORD.match(text) else str(_path(text))


def _names_database(store: str) -> bool:
    return "://" in store or bool(_KEYWORD.match(store))


def _choice(kind: type[Enum], meaning: str) -> Callable[[str], Enum]:
    """Return a parser of the values of ``kind``, which refuses others with ``meaning``."""

    def parse(text: str) -> Enum:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(meaning) from None

    return parse


def _items(item: str, meaning: str) -> Callable[[str], str]:
    """Return a parser of items between commas that match ``item``, or of ``*`` alone."""

    def parse(text: str) -> str:
        items = [each.strip().lower() for each in text.split(",")]
        if items != ["*"] and not all(re.fullmatch(item, each) for each in items):
            raise ValueError(meaning)
        return ",".join(items)

    return parse


def _switch(text: str) -> bool:
    if text.lower() not in ("1", "true", "yes", "0", "false", "no"):
        raise ValueError("a switch is 1, true, yes, 0, false or no")
    return text.lower() in ("1", "true", "yes")


def user_path(find: Callable[[str], Path], name: str) -> Path | None:
    """Return the path of ``name`` in a directory of the user, or None without a home directory.

    ``find`` is the function of platformdirs that returns the directory.
    """
    try:
        directory = find("bigfib")
    except RuntimeError:
        return None
    # With a relative HOME some versions of platformdirs return a relative path.
    return directory / name if directory.is_absolute() else None


class _UserPath:
    """Look up the default of a path only when it is read, because it needs a home directory."""

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
                f"there is no home directory for the default of {flag(self._name)}; give "
                f"{flag(self._name)} or {variable(self._name)}"
            )
        return path

    def __str__(self) -> str:
        return str(user_path(self._find, self._file) or "none without a home directory")


def _setting(flags: str, parse: Callable[[str], Any], default: Any, meaning: str) -> Any:
    return field(default=default, metadata={"flags": flags, "parse": parse, "meaning": meaning})


@dataclass(frozen=True)
class Settings:
    """The settings of a service or command.

    ``store`` is the URL of a database, or empty if positions are kept in the state log ``file``.
    """

    port: int = _setting(
        "-p --port",
        Number(0, 65535, "a port is a number from 0 to 65535 (0 takes any free one)"),
        8080,
        "port to listen on",
    )
    host: str = _setting("--host", str, "127.0.0.1", "address or name to listen on")
    file: Path = _setting(
        "-f --file",
        _path,
        _UserPath(platformdirs.user_state_path, "state.log"),
        "state log, which keeps the position of every sequence",
    )
    store: str = _setting(
        "--store",
        _store,
        "",
        "where positions are kept: the path of a state log, as with --file, or a database that "
        "services share, postgresql://USER@HOST,HOST/DATABASE or host=... dbname=..., as in libpq",
    )
    durability: Durability = _setting(
        "--durability",
        _choice(Durability, "durability is fsync or os"),
        Durability.FSYNC,
        "what an acknowledged step survives: power loss (fsync), or the end of the process (os)",
    )
    rewrite_bytes: int = _setting(
        "--rewrite-bytes",
        _size,
        REWRITE_BYTES,
        "size, such as 1MiB, from which the state log is compacted when most of it is out of date; "
        "a log of the default size is read in less than 0.1 s",
    )
    sequence_ttl: int = _setting(
        "--sequence-ttl",
        Number(
            1,
            999_999,
            "a time to live is a number of days, at least 1, or has a unit: 90d, 12w",
            {"d": 1, "w": 7},
        ),
        90,
        "days, such as 90d, after which a sequence that is not stepped may be deleted; never the "
        "shared one",
    )
    max_sequences: int = _setting(
        "--max-sequences",
        Number(0, 10**18, "the maximum is a whole number, in digits"),
        1_000_000,
        "maximum number of sequences, not counting the shared one",
    )
    cache_bytes: int = _setting(
        "--cache-bytes",
        _size,
        # 80 thousand sequences at small terms, 1,600 at 20 thousand digits, 500 without the kernel.
        64 << 20,
        "memory, such as 64MiB, for terms of recently used sequences; others are computed on "
        "request",
    )
    max_term: int = _setting(
        "--max-term",
        Number(0, MAX_INDEX, f"the largest term is a number from 0 to {MAX_INDEX}"),
        100_000_000,  # 21 million digits, computed in 2 s on two cores with 105 MB.
        "largest N whose term is computed over HTTP; large ones in the background",
    )
    cache_dir: Path = _setting(
        "--cache-dir",
        _path,
        _UserPath(platformdirs.user_cache_path),
        "directory for the digits of large terms; services may share it",
    )
    disk_cache_bytes: int = _setting(
        "--disk-cache-bytes",
        _size,
        1 << 30,  # Fifty terms at the default of `max_term`.
        "maximum size of that directory, such as 1GiB; the least recently used terms are deleted",
    )
    per_client: bool = _setting(
        "--per-client", _switch, False, "give each client a private sequence, by a cookie"
    )
    workers: int = _setting(
        "--workers",
        Number(1, 999, "workers are a number from 1 to 999"),
        1,
        "number of processes that serve on the port; they need a shared store",
    )
    one_cpu: bool = _setting(
        "-t --one-cpu", _switch, False, "run on one CPU; each worker on its own"
    )
    access_log: bool = _setting(
        "--access-log", _switch, False, "log every request to standard error"
    )
    debug: bool = _setting(
        "-d --debug", _switch, False, "log what the service does: requests, settings, tracebacks"
    )
    log_format: LogFormat = _setting(
        "--log-format",
        _choice(LogFormat, "the log's format is text or json"),
        LogFormat.TEXT,
        "format of messages on standard error: text, for people; json, a document a line",
    )
    allowed_host: str = _setting(
        "--allowed-host",
        _items(r"[a-z0-9._-]+", "a host is a name, such as fib.example, without a port; or *"),
        "",
        "names, between commas, by which clients may address the service, besides localhost and "
        "any IP address; * allows all, as is the default unless it listens on loopback",
    )
    cors_origin: str = _setting(
        "--cors-origin",
        _items(r"[a-z][a-z0-9+.-]*://[^/\s]+", "an origin is https://fib.example, or * for all"),
        "",
        "origins, between commas, whose pages may read terms; * allows all",
    )


FIELDS: Final = {setting.name: setting for setting in dataclasses.fields(Settings)}
"""The field of each setting, by name."""


class SettingsFile(NamedTuple):
    """The text of each setting in a settings file, by field name."""

    path: Path
    values: Mapping[str, str]


def resolve(
    flags: Mapping[str, str | None], environ: Mapping[str, str], file: SettingsFile | None = None
) -> tuple[Settings, dict[str, str]]:
    """Combine flags, variables, settings file and defaults.

    ``flags`` are by field name; None means not given. An empty variable counts as unset.

    Returns:
        The settings, and by field name the source of each that does not have its default: the flag,
        the variable, or the path of the file.

    Raises:
        InvalidSetting: A text is not a valid value of its setting.
    """
    layers = [
        {n: (flag(n), text) for n in FIELDS if (text := flags.get(n)) is not None},
        {n: (variable(n), text) for n in FIELDS if (text := environ.get(variable(n)))},
        {n: (f"{file.path}: {n}", text) for n, text in file.values.items()} if file else {},
    ]
    given: dict[str, tuple[str, str]] = {}
    for layer in layers:
        # Both `file` and `store` name the store, so either overrides both in later layers.
        if {"file", "store"} & given.keys():
            layer = {n: layer[n] for n in layer if n not in ("file", "store")}
        elif {"file", "store"} <= layer.keys():
            raise InvalidSetting(
                f"{layer['file'][0]} and {layer['store'][0]} both name the store; give one"
            )
        given |= {n: layer[n] for n in layer if n not in given}
    values = {}
    for name, (origin, text) in given.items():
        try:
            values[name] = FIELDS[name].metadata["parse"](text)
        except ValueError as error:
            raise InvalidSetting(f"{origin} {without_password(text)!r:.60}: {error}") from None
    sources = {name: origin.removesuffix(f": {name}") for name, (origin, _) in given.items()}
    if "store" in values and not _names_database(values["store"]):
        values["file"], sources["file"] = Path(values.pop("store")), sources.pop("store")
    return Settings(**values), sources


def without_password(store: str) -> str:
    """Return the connection string with its secrets replaced by ``***``.

    A string that is not valid may have its password anywhere, so everything before the last ``@``
    is hidden, except for the user's name at the beginning.
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
    return str(FIELDS[name].metadata["flags"]).rpartition(" ")[2]


def variable(name: str) -> str:
    """Return the environment variable of the setting ``name``."""
    return f"BIGFIB_{name.upper()}"
