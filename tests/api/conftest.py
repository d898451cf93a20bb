"""Fixtures for the tests of the API."""

from collections.abc import Callable

import pytest

from tests.api.answers import Answer
from tests.service import Service


@pytest.fixture
def get(service: Service) -> Callable[..., Answer]:
    """Return a function that requests a path below ``/api1/terms``."""

    def ask(path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
        return service.ask(f"/api1/terms{path}", method, headers)

    return ask
