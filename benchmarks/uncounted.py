"""The service as it would be if it counted no requests, to tell what counting costs.

Run with the arguments of ``bigfib serve``.
"""

import sys
from collections.abc import Iterable
from time import perf_counter
from typing import Any

from bigfib.api import app
from bigfib.api.stepping import Environ
from bigfib.cli.main import main
from bigfib.server import serve


class Uncounted(app.App):
    """`App`, but for what counts."""

    def __call__(self, env: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer one request, as WSGI has it."""
        now = perf_counter()
        if now >= self._date.due:
            self._date.renew(now)
        path = env.setdefault("PATH_INFO", "")
        methods = self.stepping.get(path)
        if methods:
            found = methods.get(env["REQUEST_METHOD"])
            if found and (
                env.get("HTTP_SEC_FETCH_SITE") != "cross-site" or path not in self._changing
            ):
                answer, _ = found
                try:
                    status, headers, body = answer(env)
                except Exception as error:
                    status, headers, body = self._fail(env, error)
                start_response(status, headers)
                return body
        return super().__call__(env, start_response)


def create_app(*arguments: Any, **more: Any) -> app.App:
    """Return what `bigfib.api.app.create_app` does, but for what counts."""
    created = app.create_app(*arguments, **more)
    created.__class__ = Uncounted
    return created


if __name__ == "__main__":
    setattr(serve, "create_app", create_app)  # noqa: B010 - mypy would have it exported
    sys.exit(main(["serve", *sys.argv[1:]]))
