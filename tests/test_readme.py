"""The sessions of the README and other documents print what the documents show."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service import Serve

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"


def session(page: Path) -> list[tuple[str, str]]:
    """Return the commands of a page's session, each with its output."""
    blocks = "".join(re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL))
    commands = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", blocks, re.MULTILINE)
    assert len(commands) > 10
    return commands


@pytest.mark.parametrize("page", ["README.md", "docs/http.md"])
def test_every_command_of_a_session_prints_what_the_page_shows(
    page: str, serve: Serve, require: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    require("curl")
    service = serve()
    monkeypatch.setenv("BIGFIB_FILE", str(service.file))
    commands = session(ROOT / page)
    # In one shell, as a reader would; a marker line follows the output of each command.
    script = "".join(f"{command}\necho end of output $?\n" for command, _ in commands)
    done = subprocess.run(
        ["bash", "-c", script.replace("localhost:8080", f"localhost:{service.port}")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    shown = done.stdout.split("end of output 0\n")
    for (command, expected), printed in zip(commands, shown, strict=False):
        assert printed == expected, (command, done.stderr)
    assert len(shown) == len(commands) + 1


def test_readme_shows_what_the_service_says_when_it_listens(serve: Serve) -> None:
    service = serve()
    (shown,) = re.findall("^bigfib: .*listens.*$", README.read_text(), re.MULTILINE)
    (said,) = [line.rstrip("\n") for line in service.said if "listens on" in line]
    said = said.replace(str(service.port), "8080")
    # This part depends on the machine.
    said = re.sub("kernel: .*", "kernel: AVX2", said)
    assert said.replace(str(service.file), "~/.local/state/bigfib/state.log") == shown


def test_readme_has_at_most_120_lines() -> None:
    assert len(README.read_text().splitlines()) <= 120


def test_readme_names_the_pythons_that_the_package_and_ci_name() -> None:
    named = re.search(r"CPython 3\.(\d+) to 3\.(\d+)", README.read_text())
    assert named
    versions = list(range(int(named[1]), int(named[2]) + 1))
    package = (ROOT / "pyproject.toml").read_text()
    classified = re.findall(r'"Programming Language :: Python :: 3\.(\d+)"', package)
    assert list(map(int, classified)) == versions
    assert f'requires-python = ">=3.{named[1]}"' in package
    workflow = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    (matrix,) = re.findall(r"python: \[(.*)\]", workflow)
    assert matrix == ", ".join(f'"3.{version}"' for version in versions)
