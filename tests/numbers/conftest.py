"""A kernel for the tests of the mathematics, compiled from the source that is tested."""

import pytest

from bigfib.numbers.kernel import Kernel, Unusable
from tests.numbers.kernels import compiled


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    try:
        return Kernel(compiled(tmp_path_factory.mktemp("kernel")))
    except Unusable as error:
        pytest.skip(str(error))
