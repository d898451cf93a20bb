"""The service as it would be if it counted no requests, to tell what counting costs.

Run with the arguments of ``bigfib serve``.
"""

import sys
from collections.abc import Iterable
from time import perf_counter
from typing import Any

from bigfib.api import app, front
from bigfib.api.stepping import Environ
from bigfib.cli.main import main
from bigfib.server import serve


class Uncounted(front.Front):
    """`Front`, except that it counts nothing under ``/api0``."""

    def __call__(self, environ: Environ, start_response: Any) -> Iterable[bytes]:
        """Answer one request, as PEP 3333 has it."""
        now = perf_counter()
        if now >= self._headers_of_all.due:
            self._headers_of_all.renew(now)
        path = environ.setdefault("PATH_INFO", "")
        methods = self._answers.get(path)
        found = methods.get(environ["REQUEST_METHOD"]) if methods else None
        if (
            found is None
            or "HTTP_TRANSFER_ENCODING" in environ
            or ("HTTP_SEC_FETCH_SITE" in environ and self._is_refused(environ, path))
        ):
            return super().__call__(environ, start_response)
        answer, _ = found
        try:
            status, headers, body = answer(environ)
        except Exception:
            return super().__call__(environ, start_response)
        headers += self._headers_of_all.headers
        start_response(status, headers)
        return body


def create_app(*arguments: Any, **more: Any) -> front.Front:
    """Return what `bigfib.api.app.create_app` does, except that it counts nothing."""
    created = app.create_app(*arguments, **more)
    created.__class__ = Uncounted
    return created


if __name__ == "__main__":
    setattr(serve, "create_app", create_app)  # noqa: B010 - mypy would have it exported
    sys.exit(main(["serve", *sys.argv[1:]]))
