"""Linters find nothing in the OpenAPI document, and clients generated from it work.

The tools come from npm and PyPI, into a directory that later runs use again.
"""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from tests.service import Serve, Service

pytestmark = pytest.mark.campaign

TOOLS = user_cache_path("bigfib-tests")

NPM = ["@redocly/cli@2", "@stoplight/spectral-cli@6", "openapi-typescript@7", "typescript@5"]
PYPI = ["openapi-python-client>=0.26,<1", "mypy>=1.13"]

PYTHON_SAMPLE = """
import sys
from generated.api.sequences import create_sequence, put_sequence, step_forward
from generated.api.terms import find_index, get_summary, get_term
from generated.client import Client
from generated.models.index import Index
from generated.models.position import Position
from generated.models.problem_with_position import ProblemWithPosition
from generated.models.sequence import Sequence
from generated.models.summary import Summary
from generated.models.term import Term

client = Client(base_url=sys.argv[1])
created = create_sequence.sync(client=client)
assert isinstance(created, Sequence)
stepped = step_forward.sync(created.id, client=client, by=100, if_match='"0"')
assert isinstance(stepped, Sequence)
again = step_forward.sync_detailed(created.id, client=client, by=100, if_match='"0"')
assert isinstance(again.parsed, ProblemWithPosition), again
start = Position(position="7")
own = put_sequence.sync("0123456789abcdef" * 2, client=client, body=start, if_none_match="*")
assert isinstance(own, Sequence)
term = get_term.sync("100", client=client)
assert isinstance(term, Term)
index = find_index.sync(client=client, value=term.value)
assert isinstance(index, Index)
summary = get_summary.sync("1000", client=client)
assert isinstance(summary, Summary)
print(stepped.value, own.position, index.n, summary.digits, again.parsed.position)
"""

TYPESCRIPT_SAMPLE = """
import type { components, paths } from "./api";

type Sequence = components["schemas"]["Sequence"];
type Index = paths["/api1/index"]["get"]["responses"]["200"]["content"]["application/json"];

async function json<T>(path: string, init: RequestInit = {}): Promise<T> {
  const answer = await fetch(service + path, init);
  if (!answer.ok) throw new Error(await answer.text());
  return (await answer.json()) as T;
}

const service: string = globalThis.SERVICE;
const created = await json<Sequence>("/api1/sequences", { method: "POST" });
const next = `/api1/sequences/${created.id}/next?by=100`;
const stepped = await json<Sequence>(next, { method: "POST", headers: { "If-Match": '"0"' } });
const index = await json<Index>(`/api1/index?value=${stepped.value}`);
console.log(stepped.value, index.n.join());

declare global {
  var SERVICE: string;
}
"""


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def npm(require: Callable[[str], str]) -> Path:
    """Return the directory of npm's programs; skip without npm, or where it installs nothing."""
    program, place = require("npm"), TOOLS / "npm"
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "node_modules").exists():
        (place / "package.json").write_text('{"private":true}')
        run(program, "install", "--no-audit", "--no-fund", *NPM, cwd=place)
    return place / "node_modules" / ".bin"


@pytest.fixture(scope="module")
def pypi() -> Path:
    """Return the directory of an environment's programs; the generator's packages stay there."""
    place = TOOLS / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    if not (place / "bin" / "openapi-python-client").exists():
        run(sys.executable, "-m", "venv", place, cwd=Path.cwd())
        run(place / "bin" / "pip", "install", "--quiet", *PYPI, cwd=place)
    return place / "bin"


@pytest.fixture
def service(serve: Serve, tmp_path: Path) -> Service:
    service = serve()
    (tmp_path / "openapi.json").write_bytes(service.ask("/openapi.json")[1])
    return service


@pytest.mark.usefixtures("service")
def test_redocly_and_spectral_find_nothing_in_the_document(npm: Path, tmp_path: Path) -> None:
    found = run(npm / "redocly", "lint", "--extends", "recommended", "openapi.json", cwd=tmp_path)
    assert "is valid" in found
    assert not re.search(r"\d+ warning", found), found
    (tmp_path / "rules.yaml").write_text('extends: ["spectral:oas"]\n')
    found = run(npm / "spectral", "lint", "openapi.json", "-r", "rules.yaml", cwd=tmp_path)
    assert "No results" in found, found


def test_generated_python_client_is_typed_and_works(
    service: Service, pypi: Path, tmp_path: Path
) -> None:
    generate = ("generate", "--path", "openapi.json", "--output-path", "generated")
    run(pypi / "openapi-python-client", *generate, "--meta", "none", cwd=tmp_path)
    (tmp_path / "sample.py").write_text(PYTHON_SAMPLE)
    run(pypi / "python", "-m", "mypy", "--strict", "generated", "sample.py", cwd=tmp_path)
    said = run(pypi / "python", "sample.py", service.url, cwd=tmp_path)
    assert said == "354224848179261915075 7 ['100'] 209 100\n"


def test_generated_typescript_types_are_strict_and_work(
    service: Service, npm: Path, require: Callable[[str], str], tmp_path: Path
) -> None:
    run(npm / "openapi-typescript", "openapi.json", "-o", "api.ts", cwd=tmp_path)
    (tmp_path / "sample.ts").write_text(TYPESCRIPT_SAMPLE)
    options = ("--strict", "--target", "es2022", "--module", "esnext", "--moduleResolution")
    run(npm / "tsc", *options, "bundler", "--lib", "es2022,dom", "sample.ts", cwd=tmp_path)
    (tmp_path / "package.json").write_text('{"type":"module"}')
    start = f'globalThis.SERVICE = "{service.url}"; await import("./sample.js");'
    said = run(require("node"), "--input-type=module", "-e", start, cwd=tmp_path)
    assert said == "354224848179261915075 100\n"
