"""Completion in real shells, and the man page."""

import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bigfib.cli.main import main

ROOT = Path(__file__).parents[2]

WANTED = [
    ("bigfib se", "settings"),
    ("bigfib serve --wor", "--workers"),
    ("bigfib log du", "dump"),
    ("bigfib --po", "--port"),
    ("bigfib serve --no-per", "--no-per-client"),
    ("bigfib serve --durability fs", "fsync"),
    ("bigfib serve --log-format js", "json"),
    ("bigfib serve --config positi", "positions.log"),
    ("bigfib next --file positi", "positions.log"),
    ("bigfib current --store positi", "positions.log"),
    ("bigfib serve --cache-dir caches", "caches.d"),
    ("bigfib term 5 -o positi", "positions.log"),
    ("bigfib store copy positi", "positions.log"),
]


@pytest.fixture
def script(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "positions.log").touch()
    (tmp_path / "caches.d").mkdir()

    def write(shell: str) -> Path:
        assert main(["completion", shell]) == 0
        path = tmp_path / f"completion.{shell}"
        path.write_text(capsys.readouterr().out)
        return path

    return write


def run(program: str, *arguments: str) -> str:
    # A `make` that runs the tests sets these, and another `make` would print messages about it.
    env = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS")}
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=20, env=env
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


class TestCompletion:
    @pytest.mark.parametrize(("typed", "completed"), WANTED)
    def test_bash_completes_what_was_typed(
        self, script: Callable[[str], Path], typed: str, completed: str
    ) -> None:
        words = typed.split()
        lines = [
            f"source {script('bash')}",
            # As readline does: the words, the index of the current one, and the function.
            f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}",
            'read -ra said <<< "$(complete -p bigfib)"',
            f"${{said[-2]}} {words[0]} {words[-1]} {words[-2]}",
            'printf "%s\\n" "${COMPREPLY[@]}"',
        ]
        assert completed in run("bash", "--norc", "-c", "\n".join(lines)).splitlines()

    @pytest.mark.parametrize(("typed", "completed"), WANTED)
    def test_fish_completes_what_was_typed(
        self,
        script: Callable[[str], Path],
        require: Callable[[str], str],
        typed: str,
        completed: str,
    ) -> None:
        lines = f"source {script('fish')}; complete -C '{typed}'"
        shown = run(require("fish"), "--no-config", "-c", lines)
        assert completed in [line.split("\t")[0].rstrip("/") for line in shown.splitlines()]

    def test_zsh_completes_what_was_typed(
        self, script: Callable[[str], Path], require: Callable[[str], str], tmp_path: Path
    ) -> None:
        zsh = require("zsh")
        script("zsh").rename(tmp_path / "_bigfib")
        terminal, end = pty.openpty()
        environ = {**os.environ, "TERM": "dumb", "ZDOTDIR": str(tmp_path), "HOME": str(tmp_path)}
        with subprocess.Popen(
            [zsh, "-f", "-i"],
            stdin=end,
            stdout=end,
            stderr=end,
            env=environ,
            start_new_session=True,
        ) as process:
            os.close(end)

            def shown_after(typed: str, expected: str) -> None:
                os.write(terminal, typed.encode())
                shown = ""
                while expected not in shown:
                    assert select.select([terminal], [], [], 20)[0], shown
                    shown += os.read(terminal, 65536).decode()

            try:
                setup = f"fpath=({tmp_path} $fpath); autoload -Uz compinit && compinit -u -D"
                shown_after(f"PS1=; {setup}; echo re''ady\n", "ready")
                for typed, completed in WANTED:
                    # Twice: the second lists ambiguous completions. The line is cleared before.
                    shown_after(f"\x15{typed}\t\t", completed)
            finally:
                process.kill()
                os.close(terminal)

    def test_unknown_shell_is_refused(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["completion", "dos"])
        assert "'dos'" in capsys.readouterr().err


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("man") / "bigfib.1"
    # The environment of the tests has been made already.
    variables = [f"VENV={sys.prefix}", f"MAN={path}"]
    run("make", "-C", str(ROOT), "-o", f"{sys.prefix}/.ready", "man", *variables)
    return path


class TestManPage:
    def test_man_page_is_well_formed(self, page: Path, require: Callable[[str], str]) -> None:
        run(require("mandoc"), "-T", "lint", "-W", "warning", str(page))

    def test_has_settings_commands_and_exit_status(
        self, page: Path, require: Callable[[str], str]
    ) -> None:
        shown = run(require("mandoc"), "-T", "utf8", "-O", "width=200", str(page))
        text = re.sub(".\b", "", shown)
        assert "bigfib - the Fibonacci sequence as a service" in text
        for said in ("--sequence-ttl", "BIGFIB_SEQUENCE_TTL", "exit status:", "bigfib log dump"):
            assert said in text, said
        assert "default: ~/.local/state/bigfib/state.log" in text
        assert str(Path.home()) not in text
