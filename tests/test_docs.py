"""Links, places in the code, commands, settings and requests in the documents exist."""

import ast
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bigfib.settings import Settings, flag
from tests.service import Serve

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "deploy/*.md", "benchmarks/*.md", "bigfib/**/*.md")
    for path in ROOT.glob(pattern)
)

_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"""(?:\]\(|src="|srcset=")([^)"\s]+)[)"]""")
_PLACE = re.compile(r"`((?:bigfib|tests|benchmarks|deploy|docs)/[\w./-]*)(?::([\w.]+))?`")


def prose(path: Path) -> str:
    """Return the text of a page without its code."""
    return _FENCED.sub("", path.read_text())


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page, as GitHub and GitLab derive them from the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in _LINK.findall(prose(page)):
        if link.startswith("http"):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def definitions(path: Path) -> set[str]:
    """Return the names that a module defines; names in classes are preceded by the class."""

    def named(node: ast.AST, before: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                yield before + child.name
                yield from named(child, f"{before}{child.name}.")

    return set(named(ast.parse(path.read_text()), ""))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_place_that_a_page_names_is_in_the_code(page: Path) -> None:
    for place, name in _PLACE.findall(prose(page)):
        assert (ROOT / place).exists(), place
        assert not name or name in definitions(ROOT / place), f"{place}:{name}"


def test_architecture_names_places() -> None:
    assert len(_PLACE.findall(prose(DOCS / "architecture.md"))) > 60


def commands(*names: str) -> set[str]:
    """Return every command that `bigfib NAMES --help` lists, with its aliases."""
    asked = [sys.executable, "-m", "bigfib", *names, "--help"]
    shown = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    found = set()
    for name, alias in re.findall(r"^    (\w+)(?: \((\w)\))?(?= |$)", shown, re.MULTILINE):
        within = commands(*names, name)
        found |= within or {" ".join((*names, one)) for one in (name, alias) if one}
    return found


def test_cli_lists_the_commands_that_there_are() -> None:
    table = (DOCS / "cli.md").read_text().partition("##")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = {
        " ".join(word for word in quoted.split() if re.fullmatch("[a-z]+", word))
        for cell in cells
        for quoted in re.findall("`(.*?)`", cell)
    }
    assert named == commands()


def test_cli_lists_the_settings_that_there_are() -> None:
    text = (DOCS / "cli.md").read_text().partition("## Settings")[2]
    rows = re.findall(r"^\| (`-.*?) \|", text, re.MULTILINE)
    listed = {re.findall("`(--[a-z-]+)`", row)[0] for row in rows}
    assert listed == {flag(field.name) for field in dataclasses.fields(Settings)}


def test_http_lists_the_requests_that_there_are(serve: Serve) -> None:
    document = json.loads(serve().ask("/openapi.json")[1])
    text = (DOCS / "http.md").read_text()
    named = {
        (method, path.replace("{id}", "{sequence_id}"))
        for method, path in re.findall(r"`(GET|POST|PUT|DELETE) (/[^`?\s]*)", text)
    }
    there = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
        if method in ("get", "post", "put", "delete")
    }
    # Files of the pages are named by the code next to them.
    assert named == there - {("GET", "/page/{name}"), ("GET", "/docs/{name}")}
