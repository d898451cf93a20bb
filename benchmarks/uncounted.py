"""The service as it would be if it counted no requests, to tell what counting costs.

Run with the arguments of ``bigfib serve``.
"""

import sys
from collections.abc import Iterable
from typing import Any

from bigfib.api import app, front
from bigfib.cli.main import main
from bigfib.server import serve


class Uncounted(front.Front):
    """`Front`, except that it counts nothing."""

    def _counted(self, _place: int, _began: float, body: Iterable[bytes]) -> Iterable[bytes]:
        return body


def create_app(*arguments: Any, **more: Any) -> front.Front:
    """Return what `bigfib.api.app.create_app` does, except that it counts nothing."""
    created = app.create_app(*arguments, **more)
    created.__class__ = Uncounted
    return created


if __name__ == "__main__":
    setattr(serve, "create_app", create_app)  # noqa: B010 - mypy would have it exported
    sys.exit(main(["serve", *sys.argv[1:]]))
