"""What tests of the whole program share."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.service import Serve, Service


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.log"


@pytest.fixture
def serve(path: Path) -> Iterator[Serve]:
    """Start services; ``before`` is a command that is to run them."""
    started = []

    def start(*arguments: str, before: list[str] | None = None) -> Service:
        service = Service(list(arguments), path, before or [])
        started.append(service)
        return service

    yield start
    for service in started:
        service.process.kill()
        service.process.communicate()


@pytest.fixture
def require() -> Callable[[str], str]:
    """Return the path of a program; without it the test is skipped, or fails in CI."""

    def find(program: str) -> str:
        found = shutil.which(program)
        if found is None:
            reason = f"{program} is not installed"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)
        return found

    return find
