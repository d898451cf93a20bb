"""The programs of docs/clients.md, and one for each common client, while replies get lost."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flint import fmpz

from tests.api.test_generated_clients import pypi
from tests.lossy import LossyProxy, lossy
from tests.service import Serve
from tests.test_client import residue

__all__ = ["pypi"]

CLIENTS = Path(__file__).parent.parent / "docs" / "clients.md"
PROGRAMS = Path(__file__).parent / "programs"
N = 1_100_000
LARGE = 6_000_000


@pytest.fixture
def proxy(serve: Serve) -> Iterator[LossyProxy]:
    with lossy(serve()) as proxy:
        yield proxy


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def example(language: str, file: Path, proxy: LossyProxy) -> str:
    """Write the last program in this language in docs/clients.md to a file; return its path."""
    found = re.findall(rf"```{language}\n(.*?)```", CLIENTS.read_text(), re.DOTALL)[-1]
    return written(found, file, proxy)


def written(program: str, file: Path, proxy: LossyProxy) -> str:
    assert program.count("http://localhost:8080") == 1
    file.write_text(program.replace("http://localhost:8080", proxy.url))
    return str(file)


def test_example_of_the_client_in_the_package_works(proxy: LossyProxy, tmp_path: Path) -> None:
    program = re.findall(r"```python\n(from bigfib.*?)```", CLIENTS.read_text(), re.DOTALL)[0]
    printed = run([sys.executable, written(program, tmp_path / "program.py", proxy)])
    assert printed.splitlines() == [
        "position 1",
        "Nothing has changed: If-Match excludes the sequence as it is; it is at position 100.",
        f"[100] {residue(10**30, 1_000_000_007)}",
        f"{len(str(fmpz.fib_ui(fmpz(N))))} digits",
    ]
    assert proxy.has_cut


@pytest.mark.campaign
@pytest.mark.parametrize("language", ["python", "js", "go"])
def test_client_whose_replies_are_lost_steps_once_and_gets_every_digit(
    language: str,
    proxy: LossyProxy,
    require: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # They must also work without a C compiler.
    monkeypatch.setenv("CGO_ENABLED", "0")
    programs = {"python": sys.executable, "js": "node", "go": "go"}
    command = [require(programs[language]), *(["run"] if language == "go" else [])]
    name = {"python": "client.py", "js": "client.mjs", "go": "client.go"}[language]
    value = fmpz.fib_ui(fmpz(N))
    assert run([*command, example(language, tmp_path / name, proxy)]) == (
        f"position 1\n{len(str(value))} digits, modulo 1000000007: {int(value % 1_000_000_007)}\n"
    )
    assert proxy.has_cut
    # The change was sent again, and made once: the position told the program.
    creation, again, step, step_again = proxy.passed
    assert (creation, step) == (again, step_again)
    _, body = proxy.service.ask(creation.removeprefix("PUT "))
    assert json.loads(body)["position"] == "1"


@pytest.mark.campaign
@pytest.mark.parametrize("program", ["scenario.go", "scenario.mjs", "scenario.py", "Scenario.java"])
def test_common_client_creates_steps_seeks_and_gets_a_large_term_and_an_index(
    program: str,
    proxy: LossyProxy,
    require: Callable[[str], str],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CGO_ENABLED", "0")
    runs: dict[str, Callable[[], list[str]]] = {
        "go": lambda: [require("go"), "run"],
        "mjs": lambda: [require("node")],
        # httpx is one of the packages that generated clients need.
        "py": lambda: [str(request.getfixturevalue("pypi") / "python")],
        # A large package, which CI need not install.
        "java": lambda: [shutil.which("java") or pytest.skip("java is not installed")],
    }
    command = runs[program.rpartition(".")[2]]()
    printed = run([*command, str(PROGRAMS / program), proxy.url, str(LARGE)])
    value = str(fmpz.fib_ui(fmpz(LARGE)))
    assert printed.splitlines() == [
        # The attempt whose reply was lost has created it.
        "create 412 0",
        "step 412 1",
        "seek 200 100",
        f"term {len(value)} {value[:20]} {value[-20:]}",
        "index 100",
    ]
    assert proxy.has_cut
