"""A machine whose power tests can cut."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.power.machine import Machine, require_fuse


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    require_fuse()
    machine = Machine(tmp_path / "disk")
    yield machine
    machine.remove()
