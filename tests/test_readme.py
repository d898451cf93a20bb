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
    block = re.search(r"```console\n(.*?)```", text, re.DOTALL)
    assert block
    turns = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block[1], re.MULTILINE)
    assert len(turns) > 5
    return turns


def test_session(
    serve: Serve, require: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    require("curl")
    service = serve()
    monkeypatch.setenv("BIGFIB_FILE", str(service.file))
    for command, expected in session():
        done = subprocess.run(
            ["bash", "-c", command.replace("localhost:8080", f"localhost:{service.port}")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        assert done.stdout == expected, command
