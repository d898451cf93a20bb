"""Settings from a file, and the command that shows all settings."""

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest

from bigfib.cli import settings_file
from bigfib.settings import Durability, InvalidSetting, Settings, resolve, without_password
from tests.cli.command import Command
from tests.test_settings import resolved


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "bigfib.toml"


def settings_of(file: Path, content: str) -> Settings:
    file.write_text(content)
    return resolved({}, {}, settings_file.read(str(file), {}))


def test_value_of_each_kind_is_read(file: Path) -> None:
    settings = settings_of(
        file, 'port = 9000\nper_client = true\ndurability = "os"\nfile = "~/positions"\n'
    )
    assert settings.port == 9000
    assert settings.per_client is True
    assert settings.durability is Durability.OS
    assert settings.file == Path.home() / "positions"
    assert settings.host == "127.0.0.1"


def test_a_flag_goes_before_the_variable_before_the_file_before_the_default(file: Path) -> None:
    file.write_text('port = 1\nhost = "h1"\nworkers = 3\n')
    said = settings_file.read(str(file), {})
    settings, sources = resolve(
        {"port": "7", "config": str(file)}, {"BIGFIB_PORT": "8", "BIGFIB_HOST": "h2"}, said
    )
    assert (settings.port, settings.host, settings.workers, settings.debug) == (7, "h2", 3, False)
    assert sources == {"port": "--port", "host": "BIGFIB_HOST", "workers": str(file)}


def test_first_source_that_names_a_store_overrides_file_and_store(file: Path) -> None:
    file.write_text('store = "postgresql://db/fib"\n')
    said = settings_file.read(str(file), {})
    assert resolved({}, {}, said).store == "postgresql://db/fib"
    for flags, environ in (({"file": "a"}, {}), ({}, {"BIGFIB_FILE": "a"})):
        settings = resolved(flags, environ, said)
        assert (settings.file, settings.store) == (Path("a"), "")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("prot = 1", "'prot' is no setting"),
        ("[server]\nport = 1", "'server' is no setting"),
        ('port = "8080"', "port must be a number, without quotes"),
        ("port = true", "port must be a number"),
        ("port = 8080.0", "port must be a number"),
        ("debug = 1", "debug must be true or false"),
        ("host = 1", "host must be a string, in quotes"),
        ("durability = ['os']", "durability must be a string"),
        ("port = 70000", "port '70000': a port is a number from 0 to 65535"),
        ("workers = -1", "workers '-1': workers are a number from 1"),
        ('durability = "maybe"', "durability 'maybe': durability is fsync or os"),
        ('file = "a"\nstore = "b"', "give one"),
        ("port = \nhost", "line 1"),
        ("port = 1\nport = 2\n", "line 2"),
        (f"port = {'9' * 5000}", "port|integer string conversion"),
        ("\udcff", "is not UTF-8"),
        ('file = "a\\u0000b"', "file 'a.*b': a path must not be empty or contain NUL"),
        ('store = "postgresql://h\\u0000b"', "a store is the path"),
        ('cache_dir = ""', "a path must not be empty"),
        (f"cache_bytes = 0x{'9' * 6000}", "integer string conversion"),
    ],
)
def test_wrong_settings_file_is_refused_by_name(file: Path, content: str, says: str) -> None:
    file.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InvalidSetting, match=says) as refusal:
        resolved({}, {}, settings_file.read(str(file), {}))
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("way", ["byte order mark", "pipe", "endless"])
def test_settings_file_of_any_kind_is_read_up_to_its_limit(file: Path, way: str) -> None:
    if way == "byte order mark":
        assert settings_of(file, "\ufeffport = 1").port == 1
    elif way == "pipe":
        reading, writing = os.pipe()
        os.write(writing, b"port = 1")
        os.close(writing)
        said = settings_file.read(f"/dev/fd/{reading}", {})
        os.close(reading)
        assert said
        assert said.values == {"port": "1"}
    else:
        with pytest.raises(InvalidSetting, match="longer than 1048576 bytes"):
            settings_file.read("/dev/zero", {})


def test_settings_file_is_looked_for_in_its_places(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(file.parent))
    assert settings_file.read(None, {}) is None
    (file.parent / "bigfib").mkdir()
    (file.parent / "bigfib" / "bigfib.toml").write_text("port = 1")
    read = settings_file.read(None, {})
    assert read
    assert read.values == {"port": "1"}
    # An empty variable names no file, and an empty flag is a mistake.
    assert settings_file.read(None, {"BIGFIB_CONFIG": ""}) == read
    with pytest.raises(InvalidSetting, match="--config: a path must not be empty"):
        settings_file.read("", {})
    # A file that is named must exist.
    for named, environ in ((str(file), {}), (None, {"BIGFIB_CONFIG": str(file)})):
        with pytest.raises(InvalidSetting, match=f"no settings file at {file}"):
            settings_file.read(named, environ)
    with pytest.raises(InvalidSetting, match="Is a directory"):
        settings_file.read(str(file.parent), {})


@pytest.mark.parametrize(
    ("store", "shown"),
    [
        ("postgresql://user@h/db", "postgresql://user@h/db"),
        ("postgresql://user:secret@h,h2/db", "postgresql://user:***@h,h2/db"),
        ("postgresql://user:se:c@r%20et@h/db?a=b", "postgresql://user:***@h/db?a=b"),
        ("postgresql://user@realm:secret@h/db", "postgresql://user@realm:***@h/db"),
        ("postgresql://user:se/c@ret@h/db", "postgresql://user:***@h/db"),
        ("postgresql://user:se?cret=secret@h/db", "postgresql://user:***@h/db"),
        ("postgresql://h:5432/db", "postgresql://h:5432/db"),
        ("postgres://h/d?password=secret&a=b", "postgres://h/d?password=***&a=b"),
        ("postgres://h/d?a=b&sslpassword=secret", "postgres://h/d?a=b&sslpassword=***"),
        ("postgres://h/d?pass%77ord=secret&a=b", "postgres://h/d?pass%77ord=***&a=b"),
        ("postgres://h/d?oauth_client_secret=s", "postgres://h/d?oauth_client_secret=***"),
    ],
)
def test_passwords_are_not_shown(store: str, shown: str) -> None:
    assert without_password(store) == shown


@pytest.mark.parametrize(
    ("store", "says"),
    [
        ("host=db user=u password=secret x=", "1: .*does not know: x$"),
        ("postgresql://u:secret@[::1/db", "1: .*the connection string is not valid"),
        ("postgresql://u:secret%zz@h/db", "1: .*the connection string is not valid"),
        ("postgresql://u:secret/s@h/db", "2: .* write / .* as %2F"),
    ],
)
def test_messages_about_invalid_connection_strings_have_no_password(
    path: Path, store: str, says: str
) -> None:
    said = Command(path).fails("current", "--store", store)
    assert re.match(says, said), said
    assert "secret" not in said


class TestShown:
    @pytest.fixture
    def bigfib(self, path: Path, file: Path) -> Command:
        file.write_text('port = 9000\nstore = "postgresql://user:secret@db/fib"\n')
        command = Command(path)
        del command.environ["BIGFIB_FILE"]
        command.environ = {n: v for n, v in command.environ.items() if n[:7] != "BIGFIB_"}
        command.environ["BIGFIB_HOST"] = "::1"
        return command

    def test_settings_in_a_pipe_are_a_settings_file(self, bigfib: Command, file: Path) -> None:
        shown = bigfib.prints("settings", "--config", str(file), "--workers", "2")
        lines = shown.splitlines()
        assert f"port = 9000  # {file}" in lines
        assert 'host = "::1"  # BIGFIB_HOST' in lines
        assert "workers = 2  # --workers" in lines
        assert f'store = "postgresql://user:***@db/fib"  # {file}' in lines
        assert '# durability = "fsync"' in lines
        assert "secret" not in shown
        file.write_text(shown)
        settings = resolved({}, {}, settings_file.read(str(file), {}))
        assert (settings.port, settings.host, settings.workers) == (9000, "::1", 2)

    @pytest.mark.parametrize("name", ["a\x7fb\n'\"c", "\udcff"])
    def test_settings_that_were_shown_can_be_read(
        self, bigfib: Command, file: Path, name: str
    ) -> None:
        named = file.with_name("bigfib\n.toml")
        file.rename(named)
        shown = bigfib.prints("settings", "--config", str(named), "--file", name)
        file.write_text(shown)
        said = settings_file.read(str(file), {})
        assert said
        assert said.values["port"] == "9000"
        if name == "\udcff":
            assert "file" not in said.values
            assert "it is not UTF-8" in shown
        else:
            assert said.values["file"] == name

    def test_json_has_value_and_source_of_each(self, bigfib: Command, file: Path) -> None:
        bigfib.environ["BIGFIB_CONFIG"] = str(file)
        document = json.loads(bigfib.prints("settings", "--json", "-t"))
        assert document["port"] == {"value": 9000, "source": str(file)}
        assert document["host"] == {"value": "::1", "source": "BIGFIB_HOST"}
        assert document["one_cpu"] == {"value": True, "source": "--one-cpu"}
        assert document["durability"] == {"value": "fsync", "source": "default"}
        assert document.keys() == {setting.name for setting in dataclasses.fields(Settings)}

    def test_a_switch_is_taken_back_by_a_flag(self, bigfib: Command, file: Path) -> None:
        file.write_text("per_client = true\none_cpu = true\naccess_log = true\ndebug = true\n")
        back = ("--no-per-client", "--no-one-cpu", "--no-access-log", "--no-debug")
        document = json.loads(bigfib.prints("settings", "--json", "--config", str(file), *back))
        for name in ("per_client", "one_cpu", "access_log", "debug"):
            assert document[name]["value"] is False

    def test_settings_on_a_terminal_are_a_table(self, bigfib: Command, file: Path) -> None:
        bigfib.environ |= {"COLUMNS": "20", "TERM": "xterm"}
        shown = bigfib.on_terminal("settings", "--config", str(file))
        rows = [line.split() for line in shown.splitlines()]
        assert rows[0] == ["setting", "value", "from"]
        assert ["port", "9000", str(file)] in rows
        assert ["host", '"::1"', "BIGFIB_HOST"] in rows
        assert ["debug", "false", "default"] in rows
        assert "\x1b" not in shown

    def test_a_bad_file_is_one_line(self, bigfib: Command, file: Path) -> None:
        file.write_text("port = 70000")
        for command in ("settings", "serve", "current"):
            said = bigfib.fails(command, "--config", str(file))
            assert said.startswith(f"2: bigfib: {file}: port '70000': a port is a number")

    def test_other_commands_go_by_the_file(self, bigfib: Command, file: Path) -> None:
        file.write_text(f'file = "{bigfib.file}"')
        assert bigfib.prints("next", "--config", str(file)) == "1\n"
        assert bigfib.file.exists()
        assert os.environ.get("BIGFIB_FILE") is None
