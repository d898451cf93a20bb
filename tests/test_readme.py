"""The README's session prints what the README says."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service import Serve

ROOT = Path(__file__).parent.parent


def session() -> list[tuple[str, str]]:
    """Return the commands of the README's session, each with what it prints."""
    text = (ROOT / "README.md").read_text()
    blocks = "".join(re.findall(r"```console\n(.*?)```", text, re.DOTALL))
    turns = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", blocks, re.MULTILINE)
    assert len(turns) > 15
    return turns


def test_session(
    serve: Serve, require: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    require("curl")
    service = serve()
    monkeypatch.setenv("BIGFIB_FILE", str(service.file))
    turns = session()
    # In one shell, as a reader would; a line of its own says where what a command prints ends.
    script = "".join(f"{command}\necho end of turn $?\n" for command, _ in turns)
    done = subprocess.run(
        ["bash", "-c", script.replace("localhost:8080", f"localhost:{service.port}")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    shown = done.stdout.split("end of turn 0\n")
    for (command, expected), printed in zip(turns, shown, strict=False):
        assert printed == expected, (command, done.stderr)
    assert len(shown) == len(turns) + 1


def test_the_pythons_it_names_are_those_of_the_package() -> None:
    named = re.search(r"CPython 3\.(\d+) to 3\.(\d+)", (ROOT / "README.md").read_text())
    assert named
    package = (ROOT / "pyproject.toml").read_text()
    classified = re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', package)
    assert list(map(int, classified)) == list(range(int(named[1]), int(named[2]) + 1))
    assert f'requires-python = ">=3.{named[1]}"' in package
