"""The page and what belongs to it, read once from the package; no path of a caller is looked up."""

import hashlib
from importlib.resources import files
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response

_TYPES = {
    "index.html": "text/html; charset=utf-8",
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """One file of the page."""

    content: bytes
    media_type: str
    tag: str  # changes with the content

    def response(self, request: Request) -> Response:
        """The file, or that the browser's copy will do."""
        headers = {"ETag": self.tag, "Cache-Control": "no-cache"}
        if request.headers.get("if-none-match") == self.tag:
            return Response(status_code=304, headers=headers)
        return Response(self.content, headers=headers, media_type=self.media_type)


def assets() -> dict[str, Asset]:
    """Each by its path."""
    folder = files("xception.deploy.server") / "static"
    found = {}
    for name, media_type in _TYPES.items():
        content = (folder / name).read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        path = "/" if name == "index.html" else f"/{name}"
        found[path] = Asset(content, media_type, tag)
    return found
