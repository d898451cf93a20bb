"""Fixtures of the tests of the interface."""

from collections.abc import Callable

import pytest

from tests.api.answers import Answer
from tests.service import Service


@pytest.fixture
def get(service: Service) -> Callable[..., Answer]:
    """Ask a service below ``/api1/terms``."""

    def ask(path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
        return service.ask(f"/api1/terms{path}", method, headers)

    return ask
