"""What all benchmarks share."""

import pytest

from bigfib import server


@pytest.fixture(autouse=True, scope="session")
def memory_as_in_the_service() -> None:
    """Let malloc keep freed memory as it does in the service; the yardsticks profit as much."""
    server.keep_freed_memory()
