"""``/``: the page for people. It asks for what any client may ask for under ``/api1``.

Its files are in the package and are served as they are: nothing is built, nothing is fetched from
elsewhere, and the policy lets the browser do neither.
"""

import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Final

import falcon

from bigfib.api import requests

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}

# Run and ask for what is of this service, and nothing else.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    etag: str


class Page:
    """``/``, and ``/page/{name}`` for what it is made of."""

    def __init__(self) -> None:
        """Read the files, once."""
        self._files = {
            "" if file.name == "index.html" else file.name: _File(
                content := file.read_bytes(),
                _TYPES[file.name.rpartition(".")[2]],
                hashlib.blake2b(content, digest_size=8).hexdigest(),
            )
            for file in (resources.files("bigfib") / "page").iterdir()
            if file.name.rpartition(".")[2] in _TYPES
        }

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str = "") -> None:
        """Show a file, or that the client has it as it is."""
        file = self._files.get(name)
        if file is None:
            raise falcon.HTTPNotFound
        resp.etag = file.etag
        # After an upgrade the page and its scripts are of one version.
        resp.cache_control = ["no-cache"]
        resp.set_header("Content-Security-Policy", _POLICY)
        resp.set_header("Referrer-Policy", "no-referrer")
        if requests.is_known(req, file.etag):
            resp.status = falcon.HTTP_304
            return
        resp.content_type = file.media_type
        resp.data = file.content

    on_head = on_get
