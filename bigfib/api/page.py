"""Serve the page for people, which uses ``/api1`` as any client may.

Its files are in the package and are served as they are. Nothing is fetched from other sites, which
the content security policy forbids.
"""

import hashlib
import html
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


class Page:
    """Serve ``/``, and its style sheets, scripts and pictures at ``/page/{name}``."""

    def __init__(self) -> None:
        self._files = {
            "" if file.name == "index.html" else file.name: (media_type, file.read_bytes())
            for file in (resources.files("bigfib") / "page").iterdir()
            if (media_type := _TYPES.get(file.name.rpartition(".")[2]))
        }

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str = "") -> None:
        """Send a file, or 304 if the client has this version of it."""
        if name not in self._files:
            raise falcon.HTTPNotFound
        media_type, content = self._files[name]
        if not name:
            content = content.replace(_ORIGIN, html.escape(req.forwarded_prefix).encode())
        etag = hashlib.blake2b(content, digest_size=8).hexdigest()
        resp.etag = etag
        # Revalidated each time, so that page and scripts are of one version after an upgrade.
        resp.cache_control = ["no-cache"]
        resp.set_header("Content-Security-Policy", _POLICY)
        resp.set_header("Referrer-Policy", "no-referrer")
        if requests.is_known(req, etag):
            resp.status = falcon.HTTP_304
            return
        resp.content_type = media_type
        resp.data = content

    on_head = on_get
