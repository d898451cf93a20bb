"""The command line: misuse, exit status, help, colours, imports."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bigfib.cli import main
from bigfib.numbers import kernel
from bigfib.state import reader
from tests.cli.command import (
    Command,
    computing,
    require_nobody_left,
)
from tests.service import Serve


class TestMisuse:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["term", "abc"], "'abc' is not an index"),
            (["term", "1e-9"], "'1e-9' is not an index"),
            (["term", "x7"], "not an index"),
            (["term", ""], "not an index"),
            (["term"], "required: N"),
            (["term", "5", "--modulo", "0"], "at least 1"),
            (["term", "5", "--modulo", "x"], "'x' is not a modulus"),
            (["term", "5", "--base", "0100"], "from 2 to 62"),
            (["-p", "00655350"], "from 0 to 65535"),
            (["term", "5", "--base", "1"], "from 2 to 62"),
            (["term", "5", "--base", "99999999999999999999"], "from 2 to 62"),
            (["term", "5", "--base", "7", "--summary"], "not allowed with"),
            (["bogus"], "there is no command 'bogus'; see bigfib --help"),
            (["nxt"], "there is no command 'nxt' (did you mean next?); see"),
            (["stauts"], "(did you mean status?)"),
            (["log", "dmup"], "there is no command 'dmup' (did you mean dump?)"),
            (["a\nb" * 1000], "there is no command 'a\\nba"),
            (["serve", "--prot", "1"], "--prot 1 (did you mean --port?)"),
            (["--prot", "1"], "(did you mean --port?)"),
            (["-p", "1", "serv"], "(did you mean serve?)"),
            (["term", "5", "--bsae=3"], "(did you mean --base?)"),
            (["log", "dump", "--jsno"], "(did you mean --json?)"),
            # An option of another command.
            (["term", "5", "--by", "2"], "unrecognized arguments: --by 2; see"),
            (["serve", "--bogus"], "--bogus"),
            (["-p", "70000"], "from 0 to 65535"),
            (["-p", "-1"], "-p"),
            (["-p", "8o80"], "from 0 to 65535"),
            (["--durability", "maybe"], "--durability: invalid choice: 'maybe'"),
            (["log"], "verify, dump, compact, repair or backup"),
            (["current", "-f", "~nobody-of-that-name/x"], "no such home directory"),
        ],
    )
    def test_misuse_exits_2_with_one_line(
        self, bigfib: Command, arguments: list[str], says: str
    ) -> None:
        refusal = bigfib.fails(*arguments)
        assert refusal.startswith("2: ")
        assert says in refusal
        assert not bigfib.file.exists()

    def test_variables_are_refused_by_name(self, bigfib: Command) -> None:
        bigfib.environ["BIGFIB_PORT"] = "http"
        assert "BIGFIB_PORT 'http': a port is" in bigfib.fails("serve")

    @pytest.mark.parametrize("command", ["current", "next", "serve"])
    def test_file_that_is_not_a_log_is_refused_and_kept(
        self, bigfib: Command, command: str
    ) -> None:
        bigfib.file.write_text("something else")
        port = ["-p", "0"] if command == "serve" else []
        refusal = bigfib.fails(command, *port)
        assert "does not begin with the magic bytes" in refusal
        assert refusal.rstrip().endswith("; name another file with --file")
        assert bigfib.file.read_text() == "something else"

    def test_log_that_may_not_be_read_is_refused(
        self, bigfib: Command, require: Callable[[str], str]
    ) -> None:
        bigfib("next")
        bigfib.file.chmod(0)
        if os.geteuid() == 0:
            # Root without its power to ignore permissions.
            powers = "-dac_override,-dac_read_search"
            bigfib.before = [require("setpriv"), "--bounding-set", powers, "--inh-caps", powers]
        for command in ("current", "next", "serve"):
            assert "Permission denied" in bigfib.fails(command)

    @pytest.mark.parametrize("command", ["current", "next"])
    def test_log_that_is_a_pipe_or_device_is_refused(
        self, bigfib: Command, tmp_path: Path, command: str
    ) -> None:
        """Writing to a pipe would block, and a device would be replaced."""
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        for other in (pipe, Path("/dev/null")):
            assert "it is not a file" in bigfib.fails(command, "-f", str(other))
        assert pipe.is_fifo()
        assert Path("/dev/null").is_char_device()

    @pytest.mark.parametrize("command", ["verify", "dump", "compact", "repair"])
    def test_log_whose_name_is_too_long_is_refused(self, bigfib: Command, command: str) -> None:
        refusal = bigfib.fails("log", command, "-f", "a" * 300)
        assert "File name too long; name another" in refusal

    def test_log_whose_name_is_not_utf_8_is_used(self, bigfib: Command, tmp_path: Path) -> None:
        odd = os.fsencode(tmp_path) + b"/\xff.log"
        bigfib.environ["PYTHONIOENCODING"] = "utf-8:strict"
        assert bigfib.prints("next", "-f", os.fsdecode(odd)) == "1\n"
        assert "dcff.log" in bigfib.prints("log", "verify", "-f", os.fsdecode(odd))

    def test_log_that_cannot_be_created_is_refused(self, bigfib: Command) -> None:
        refusal = bigfib.fails("next", "-f", "/proc/bigfib/state.log")
        assert "cannot use /proc/bigfib/state.log as state log" in refusal


class TestExitStatus:
    """Run every command that `--help` lists, except those that other tests run."""

    def test_help_names_every_status(self, bigfib: Command) -> None:
        shown = bigfib.prints("--help").partition("exit status:\n")[2].partition("\n\n")[0]
        statuses = ["0", "1", "2", "3", "4", "130", "128"]
        assert re.findall(r"^  (\d+)", shown, re.MULTILINE) == statuses

    def test_success_failure_and_misuse_exit_with_0_1_and_2(self, bigfib: Command) -> None:
        statuses = [bigfib(*arguments).returncode for arguments in (["c"], ["p"], ["bogus"])]
        assert statuses == [0, 1, 2]

    @pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_of_a_command_that_is_ended(
        self, tmp_path: Path, number: signal.Signals, status: int
    ) -> None:
        with computing(tmp_path / "term") as process:
            process.send_signal(number)
            assert process.wait(timeout=20) == status
            require_nobody_left(process.pid)

    def test_status_of_a_command_interrupted_during_imports_is_that_of_the_signal(
        self, bigfib: Command, tmp_path: Path
    ) -> None:
        # A file in place of a module that bigfib imports.
        (tmp_path / "argparse.py").write_text(
            "import time; print('imported', flush=True); time.sleep(30)"
        )
        with subprocess.Popen(
            [sys.executable, "-m", "bigfib", "current"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**bigfib.environ, "PYTHONPATH": str(tmp_path)},
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "imported\n"
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=20)[1] == ""
            # A shell reports this as 130.
            assert process.returncode == -signal.SIGINT

    def test_service_stopped_by_ctrl_c_exits_with_0(self, serve: Serve) -> None:
        assert serve().stop(signal.SIGINT) == 0


class TestColours:
    FAR = ("term", "20000000", "-o", "/dev/null")
    COLOUR = re.compile(r"\x1b\[[0-9;]*m")

    def test_output_on_a_terminal_has_colours(self, bigfib: Command) -> None:
        bigfib.environ |= {"TERM": "xterm-256color"}
        bigfib.environ.pop("NO_COLOR", None)
        assert self.COLOUR.search(bigfib.on_terminal(*self.FAR))

    @pytest.mark.parametrize("variable", ["NO_COLOR=1", "TERM=dumb"])
    def test_output_where_colours_are_not_wanted_has_none(
        self, bigfib: Command, variable: str
    ) -> None:
        name, _, value = variable.partition("=")
        bigfib.environ |= {"TERM": "xterm-256color", name: value}
        assert not self.COLOUR.search(bigfib.on_terminal(*self.FAR))
        for command in (["settings"], ["--help"], ["bogus"]):
            assert "\x1b" not in bigfib.on_terminal(*command)

    def test_output_in_a_pipe_has_no_colours(self, bigfib: Command) -> None:
        bigfib.environ |= {"TERM": "xterm-256color", "FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}
        done = bigfib(*self.FAR)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert "\x1b" not in bigfib.prints("settings")


class TestHelp:
    def test_version_option_prints_the_version(self, bigfib: Command) -> None:
        assert re.fullmatch(r"bigfib \d+\.\d+\.\d+\n", bigfib.prints("--version"))

    def test_version_with_details_names_the_kernel(self, bigfib: Command) -> None:
        shown = bigfib.prints("--version", "-v")
        assert re.fullmatch(r"bigfib \d+\.\d+\.\d+\nkernel: .+\n", shown)
        assert shown.splitlines()[1] == f"kernel: {kernel.description()}"

    def test_help_names_every_command(self, bigfib: Command) -> None:
        shown = bigfib.prints("--help")
        for command in ("serve", "current", "next", "previous", "term", "log"):
            assert command in shown

    def test_help_of_each_command_is_the_same_where_only_that_command_is_loaded(
        self, bigfib: Command
    ) -> None:
        whole = main.parser().commands
        assert len(whole) > 15
        for name, command in whole.items():
            help_text = bigfib.prints(name, "--help")
            assert help_text.split() == command.format_help().split(), name

    def test_with_a_percent_sign_in_a_default(self, bigfib: Command) -> None:
        for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            bigfib.environ[name] = "/50%d"
        assert bigfib.prints("serve", "--help").count("/50%d/bigfib") == 3

    def test_help_names_variables_and_defaults(self, bigfib: Command) -> None:
        shown = " ".join(bigfib.prints("serve", "--help").split())
        assert "[BIGFIB_PORT, default: 8080]" in shown
        assert "[BIGFIB_DURABILITY, default: fsync]" in shown


class TestNoHome:
    """Neither HOME nor the system names a home directory."""

    @pytest.fixture(params=[{}, {"HOME": ""}, {"HOME": "relative"}])
    def bigfib(self, path: Path, stranger: list[str], request: pytest.FixtureRequest) -> "Command":
        command = Command(path)
        command.before = stranger
        command.environ = request.param
        return command

    def test_command_without_paths_needs_no_home_directory(self, bigfib: Command) -> None:
        assert bigfib.prints("term", "5") == "5\n"
        assert "default: none without a home directory]" in " ".join(
            bigfib.prints("serve", "--help").split()
        )
        document = json.loads(bigfib.prints("settings", "--json"))
        for name in ("file", "cache_dir"):
            source = "default: none without a home directory"
            assert document[name] == {"value": "", "source": source}

    def test_what_needs_a_path_names_its_setting(self, bigfib: Command) -> None:
        says = "2: bigfib: there is no home directory for the default of {0}; give {0} or {1}\n"
        for command in (["current"], ["next"], ["log", "verify"]):
            assert bigfib.fails(*command) == says.format("--file", "BIGFIB_FILE")
        said = bigfib.fails("-p", "0", "-f", "/nowhere/log")
        assert said == says.format("--cache-dir", "BIGFIB_CACHE_DIR")

    def test_command_with_given_paths_needs_no_home_directory(self, bigfib: Command) -> None:
        with tempfile.TemporaryDirectory() as directory:
            Path(directory).chmod(0o777)
            file = str(Path(directory) / "log")
            assert bigfib.prints("next", "-f", file) == "1\n"
            assert bigfib.prints("current", "-f", file) == "1\n"


class TestUnknownVariables:
    @pytest.mark.parametrize(
        ("name", "advice"),
        [("BIGFIB_PROT", "did you mean BIGFIB_PORT?"), ("BIGFIB_XYZ", "see `bigfib settings`")],
    )
    def test_are_warned_of_once_and_ignored(self, bigfib: Command, name: str, advice: str) -> None:
        bigfib.environ[name] = "1"
        warning = f"bigfib: the variable {name!r} is no setting and is ignored; {advice}\n"
        for command in (["next"], ["current"], ["settings"], ["log", "compact"]):
            done = bigfib(*command)
            assert (done.returncode, done.stderr) == (0, warning)
        # Commands without settings.
        assert bigfib.prints("term", "10") == "55\n"

    def test_of_a_service_are_in_the_format_of_its_log(self, bigfib: Command) -> None:
        bigfib.environ["BIGFIB_PROT"] = "1"
        done = bigfib("-p", "0", "--log-format", "json", "--workers", "2")
        messages = [json.loads(line)["message"] for line in done.stderr.splitlines()]
        assert len(messages) == 2
        assert "'BIGFIB_PROT' is no setting" in messages[0]

    def test_empty_or_known_variables_cause_no_warning(
        self, bigfib: Command, tmp_path: Path
    ) -> None:
        config = tmp_path / "bigfib.toml"
        config.touch()
        bigfib.environ |= {"BIGFIB_PROT": "", "BIGFIB_CONFIG": str(config), "BIGFIB_PORT": "1"}
        assert bigfib.prints("current") == "0\n"


@pytest.mark.parametrize(
    ("arguments", "more"),
    [
        (["current"], ["bigfib.cli.store_commands"]),
        (["next"], []),
        (["--help"], []),
        (["term", "7000000"], ["bigfib.settings", "bigfib.sequences", "bigfib.state.reader"]),
    ],
)
def test_command_without_a_service_loads_neither_the_server_nor_what_it_does_not_use(
    bigfib: Command, arguments: list[str], more: list[str]
) -> None:
    unwanted = ["falcon", "bjoern", "http", "psycopg", "prometheus_client", "rich", "shtab"]
    unwanted += ["bigfib.server", "bigfib.api", "bigfib.state.postgres", *more]
    program = (
        f"import sys\n"
        f"from bigfib.cli.main import main\n"
        f"try: main({arguments})\n"
        f"finally: print([name for name in {unwanted} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env=bigfib.environ,
        check=True,
    )
    assert done.stdout
    assert done.stderr == "[]\n"


def test_start_of_a_command_does_not_look_up_the_version_of_gmpy2(bigfib: Command) -> None:
    """gmpy2 would import this package, half as many modules as everything else."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "bigfib", "current"],
        capture_output=True,
        text=True,
        env=bigfib.environ,
        check=True,
    )
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "gmpy2.gmpy2" in loaded
    assert not loaded & {"importlib.metadata", "email.message", "socket", "zipfile"}


def test_version_of_another_package_can_be_looked_up_after_the_start() -> None:
    program = (
        "import sys; from bigfib import __main__; sys.argv[1:] = ['term', '10']; __main__.main();"
        "import importlib.metadata; print(importlib.metadata.version('gmpy2'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert re.fullmatch(r"55\n2\.\d+\.\d+\n", done.stdout), done
    assert done.stderr == ""


def test_bigfib_without_a_command_serves(bigfib: Command) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "bigfib", "-p", "0"],
        stderr=subprocess.PIPE,
        env=bigfib.environ,
        text=True,
    ) as process:
        assert process.stderr is not None
        assert "listens on http://127.0.0.1:" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    assert reader.read(bigfib.file).latest == {}
