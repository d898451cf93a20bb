"""Serve the page for people, which uses ``/api1`` as any client may.

Its files are in the package and are served as they are. Nothing is built, and nothing is fetched
from other sites; the content security policy does not let the browser do so.
"""

import hashlib
import html
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import Final

import falcon

from bigfib.api import requests

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
}

# Run scripts and send requests of this service only (Content Security Policy).
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


# Where `index.html` needs the address of the service: OpenGraph has no relative addresses.
_ORIGIN: Final = b"{origin}"


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str

    @cached_property
    def etag(self) -> str:
        return hashlib.blake2b(self.content, digest_size=8).hexdigest()

    def at(self, origin: str) -> "_File":
        """Return the file as it is served at this address."""
        address = html.escape(origin).encode()
        return _File(self.content.replace(_ORIGIN, address), self.media_type)


class Page:
    """Serve ``/``, and its style sheets, scripts and pictures at ``/page/{name}``."""

    def __init__(self) -> None:
        """Read the files."""
        self._files = {
            "" if file.name == "index.html" else file.name: _File(
                file.read_bytes(), _TYPES[file.name.rpartition(".")[2]]
            )
            for file in (resources.files("bigfib") / "page").iterdir()
            if file.name.rpartition(".")[2] in _TYPES
        }

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str = "") -> None:
        """Send a file, or 304 if the client has this version of it."""
        file = self._files.get(name)
        if file is None:
            raise falcon.HTTPNotFound
        if not name:
            file = file.at(req.forwarded_prefix)
        resp.etag = file.etag
        # Revalidated each time, so that page and scripts are of one version after an upgrade.
        resp.cache_control = ["no-cache"]
        resp.set_header("Content-Security-Policy", _POLICY)
        resp.set_header("Referrer-Policy", "no-referrer")
        if requests.is_known(req, file.etag):
            resp.status = falcon.HTTP_304
            return
        resp.content_type = file.media_type
        resp.data = file.content

    on_head = on_get
