"""The sources of settings, and their valid values."""

import dataclasses
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from bigfib.cli import settings_file
from bigfib.cli.arguments import unknown_variables
from bigfib.settings import Durability, InvalidSetting, LogFormat, Settings, SettingsFile, resolve
from bigfib.state import compaction, log


def resolved(
    flags: Mapping[str, str | None], environ: Mapping[str, str], file: SettingsFile | None = None
) -> Settings:
    """Return the settings without their sources."""
    return resolve(flags, environ, file)[0]


def test_a_flag_goes_before_the_variable_and_that_before_the_default() -> None:
    environ = {"BIGFIB_PORT": "1111", "BIGFIB_HOST": "::1", "OTHER": "x"}
    settings = resolved({"port": "2222", "host": None, "unrelated": "x"}, environ)
    assert (settings.port, settings.host) == (2222, "::1")
    assert settings.durability is Durability.FSYNC


def test_every_setting_has_a_variable(tmp_path: Path) -> None:
    environ = {
        "BIGFIB_PORT": "0",
        "BIGFIB_HOST": "h",
        "BIGFIB_FILE": str(tmp_path),
        "BIGFIB_STORE": "postgresql://db/fib",
        "BIGFIB_DURABILITY": "os",
        "BIGFIB_REWRITE_BYTES": "1000",
        "BIGFIB_SEQUENCE_TTL": "7",
        "BIGFIB_MAX_SEQUENCES": "5",
        "BIGFIB_CACHE_BYTES": "2000",
        "BIGFIB_MAX_TERM": "12345678",
        "BIGFIB_CACHE_DIR": str(tmp_path / "cache"),
        "BIGFIB_DISK_CACHE_BYTES": "3000",
        "BIGFIB_PER_CLIENT": "yes",
        "BIGFIB_WORKERS": "4",
        "BIGFIB_ONE_CPU": "1",
        "BIGFIB_ACCESS_LOG": "yes",
        "BIGFIB_DEBUG": "True",
        "BIGFIB_LOG_FORMAT": "json",
        "BIGFIB_ALLOWED_HOST": "Fib.example, b.example",
        "BIGFIB_CORS_ORIGIN": "https://fib.example:8443",
    }
    # Both say where positions are kept, so only one may be given.
    file = resolved({}, {"BIGFIB_FILE": environ.pop("BIGFIB_FILE")}).file
    expected = Settings(
        *(0, "h", Settings().file, "postgresql://db/fib", Durability.OS, 1000, 7, 5, 2000),
        *(12_345_678, tmp_path / "cache", 3000, True, 4, True, True, True, LogFormat.JSON),
        *("fib.example,b.example", "https://fib.example:8443"),
    )
    assert resolved({}, environ) == expected
    assert file == tmp_path
    assert len(environ) + 1 == len(dataclasses.fields(Settings))


def test_settings_of_the_log_are_those_that_the_log_knows() -> None:
    assert {each.value for each in Durability} == {each.value for each in log.Durability}
    assert Settings().rewrite_bytes == compaction.REWRITE_BYTES


def test_settings_import_neither_a_store_nor_logging() -> None:
    script = (
        "import sys, bigfib.settings;"
        "unwanted = ('bigfib.state', 'bigfib.server', 'logging');"
        "sys.exit(any(name.startswith(unwanted) for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_state_log_is_in_the_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/somewhere")
    assert Settings().file == Path("/somewhere/bigfib/state.log")


def test_a_store_is_a_path_or_a_database() -> None:
    assert resolved({"store": "a/log"}, {}).file == Path("a/log")
    assert resolved({"store": "a/log"}, {}).store == ""
    assert resolved({"store": "host=a,b dbname=fib"}, {}).store == "host=a,b dbname=fib"
    environ = {"BIGFIB_STORE": "postgresql://db/fib"}
    assert resolved({}, environ).store == "postgresql://db/fib"
    # The flag overrides the variable, even if it is the variable of the other setting.
    named = resolved({"file": "a/log"}, environ)
    assert (named.file, named.store) == (Path("a/log"), "")
    with pytest.raises(InvalidSetting, match="give one"):
        resolved({"file": "a/log", "store": "b/log"}, {})
    with pytest.raises(InvalidSetting, match=r"BIGFIB_FILE and BIGFIB_STORE both .*give one"):
        resolved({}, {**environ, "BIGFIB_FILE": "a/log"})
    assert resolved({}, {**environ, "BIGFIB_FILE": ""}).store == "postgresql://db/fib"


@pytest.mark.parametrize("name", ["file", "store", "cache_dir"])
def test_an_empty_path_is_a_mistake_by_flag_and_none_by_variable(name: str) -> None:
    with pytest.raises(InvalidSetting, match="path"):
        resolved({name: ""}, {})
    assert resolved({}, {f"BIGFIB_{name.upper()}": ""}) == Settings()


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("cache_bytes", "64MiB", 67_108_864),
        ("cache_bytes", "64 mib", 67_108_864),
        ("cache_bytes", "67108864", 67_108_864),
        ("cache_bytes", "0", 0),
        ("rewrite_bytes", "500kB", 500_000),
        ("rewrite_bytes", "3MB", 3_000_000),
        ("rewrite_bytes", "1KiB", 1024),
        ("disk_cache_bytes", "2GB", 2_000_000_000),
        ("disk_cache_bytes", "1GiB", 1_073_741_824),
        ("sequence_ttl", "90d", 90),
        ("sequence_ttl", "12w", 84),
        ("sequence_ttl", "7", 7),
    ],
)
def test_size_or_time_with_a_unit_is_the_same_by_flag_variable_and_file(
    name: str, text: str, value: int, tmp_path: Path
) -> None:
    file = tmp_path / "bigfib.toml"
    file.write_text(f'{name} = "{text}"\n')
    for settings in (
        resolved({name: text}, {}),
        resolved({}, {f"BIGFIB_{name.upper()}": text}),
        resolved({}, {}, settings_file.read(str(file), {})),
    ):
        assert getattr(settings, name) == value


@pytest.mark.parametrize("off", ["0", "no", "FALSE"])
def test_switch_can_be_off_by_variable(off: str) -> None:
    assert resolved({}, {"BIGFIB_DEBUG": off}).debug is False


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("PORT", "65536", "a port is a number"),
        ("PORT", "9" * 5000, "a port is a number"),
        ("PORT", "٣", "a port is a number"),
        ("DURABILITY", "FSYNC!", "durability is fsync or os"),
        ("REWRITE_BYTES", "1e6", "a whole number"),
        ("MAX_TERM", "1000000001", "from 0 to 1000000000"),
        ("MAX_TERM", "9" * 5000, "from 0 to 1000000000"),
        ("DISK_CACHE_BYTES", "1G", "a whole number of bytes, or one with a unit: kB"),
        ("CACHE_BYTES", "MiB", "a whole number"),
        ("CACHE_BYTES", "-1MiB", "a whole number"),
        ("CACHE_BYTES", "1.5GiB", "a whole number"),
        ("CACHE_BYTES", "2000000000GB", "a whole number"),
        ("CACHE_BYTES", "90d", "a whole number"),
        ("MAX_TERM", "1kB", "from 0 to 1000000000"),
        ("MAX_SEQUENCES", "1kB", "a whole number"),
        ("SEQUENCE_TTL", "90 days", "90d, 12w"),
        ("SEQUENCE_TTL", "0d", "at least 1"),
        ("SEQUENCE_TTL", "0", "at least 1"),
        ("SEQUENCE_TTL", "9" * 5000, "at least 1"),
        ("STORE", "mysql://db/fib", "a store is the path of a state log, or postgresql://"),
        ("WORKERS", "0", "from 1 to 999"),
        ("DEBUG", "maybe", "a switch is"),
    ],
)
def test_wrong_value_of_a_variable_is_refused_by_name(name: str, text: str, says: str) -> None:
    with pytest.raises(InvalidSetting, match=f"BIGFIB_{name} .*{says}") as refusal:
        resolved({}, {f"BIGFIB_{name}": text})
    assert len(str(refusal.value)) < 200


def test_no_variable_of_a_setting_is_unknown() -> None:
    names = ["CONFIG", *(setting.name.upper() for setting in dataclasses.fields(Settings))]
    assert list(unknown_variables({f"BIGFIB_{name}": "x" for name in names})) == []
    (warning,) = unknown_variables({"BIGFIB_CACHEDIR": "x", "OTHER": "x"})
    assert warning.endswith("did you mean BIGFIB_CACHE_DIR?")
