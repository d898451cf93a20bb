"""Serve the page for people, which uses ``/api1`` as any client may, and the API reference.

The files are in packages. Nothing is fetched from other sites: the
content security policy forbids it.
"""

import html
from collections.abc import Iterable
from importlib import resources
from typing import Any, Final

import falcon
from swagger_ui_bundle import swagger_ui_path

from bigfib.api import requests
from bigfib.api.representations import content_tag

_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
}

# Allow only scripts of this service, and requests only to it (Content Security Policy).
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# Stands in `index.html` for the address of the service: OpenGraph has no relative URLs.
_ORIGIN: Final = b"{origin}"

# Swagger UI has pictures in its style sheet.
_REFERENCE_POLICY: Final = _POLICY.replace("img-src 'self'", "img-src 'self' data:")


class Page:
    """Serve a page, and its style sheets, scripts and pictures below it by ``name``."""

    def __init__(self, main: str, files: Iterable[Any], policy: str = _POLICY) -> None:
        """Serve the ``files`` of known types, of which ``main`` is the page itself."""
        self._policy = policy
        self._files: dict[str, tuple[str, bytes, str]] = {}
        for file in files:
            if media_type := _TYPES.get(file.name.rpartition(".")[2]):
                content = file.read_bytes()
                name = "" if file.name == main else file.name
                self._files[name] = media_type, content, content_tag(content)

    def on_get(self, req: falcon.Request, resp: falcon.Response, name: str = "") -> None:
        """Send a file, or 304 if the client has this version of it."""
        if name not in self._files:
            raise falcon.HTTPNotFound
        media_type, content, etag = self._files[name]
        if not name:
            content = content.replace(_ORIGIN, html.escape(req.forwarded_prefix).encode())
            etag = content_tag(content)
        resp.etag = etag
        # Revalidated each time, so that page and scripts are of one version after an upgrade.
        resp.cache_control = ["no-cache"]
        resp.set_header("Content-Security-Policy", self._policy)
        resp.set_header("Referrer-Policy", "no-referrer")
        if requests.is_known(req, etag):
            resp.status = falcon.HTTP_304
            return
        resp.content_type = media_type
        resp.data = content

    on_head = on_get


def page() -> Page:
    """Return the resource for ``/`` and ``/page/{name}``."""
    return Page("index.html", (resources.files("bigfib") / "page").iterdir())


def reference() -> Page:
    """Return the resource for ``/docs`` and ``/docs/{name}``: Swagger UI, to read and to try."""
    own = [resources.files("bigfib.api") / name for name in ("docs.html", "docs.js")]
    bundle = [swagger_ui_path / name for name in ("swagger-ui.css", "swagger-ui-bundle.js")]
    return Page("docs.html", [*own, *bundle], _REFERENCE_POLICY)
