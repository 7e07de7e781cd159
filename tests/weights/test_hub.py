"""Fetching published weights, from a hub on loopback."""

import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from xception.errors import UserError
from xception.weights.hub import PUBLISHED, fetch

pytest.importorskip("huggingface_hub", reason="NOT TESTED: huggingface-hub is not installed")
CONTENT = bytes(range(256)) * 49_152  # 12 MiB: the library takes parts of 10
COMMIT = "0123456789012345678901234567890123456789"
REPO = PUBLISHED["xception"].repo
FETCH = """
from xception.errors import UserError
from xception.weights.hub import fetch
try:
    fetched = fetch("xception")
    print("ok", fetched.sha256, fetched.path.stat().st_size)
except UserError as error:
    print("refused", error)
"""


class Hub(ThreadingHTTPServer):
    """Just enough of the hub: one file, its hash in the header, and parts of it on request."""

    announced = hashlib.sha256(CONTENT).hexdigest()
    breaks_after: int | None = None  # bytes, once
    ranges: list[str]
    missing = False


class Handler(BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool):
        hub = self.server
        wanted = f"/{REPO}/resolve/main/model.safetensors"
        if hub.missing or self.path.split("?")[0] != wanted:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if "resolve" in self.path else "")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = 0
        asked = self.headers.get("Range")
        if body and asked:
            hub.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").split("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("ETag", f'"{hub.announced}"')
        self.send_header("X-Linked-ETag", f'"{hub.announced}"')
        self.send_header("X-Linked-Size", str(len(CONTENT)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if start:
            total = len(CONTENT)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        if not body:
            return
        end = len(CONTENT)
        if hub.breaks_after is not None:
            end, hub.breaks_after = start + hub.breaks_after, None
            self.close_connection = True
        self.wfile.write(CONTENT[start:end])

    def log_message(self, format: str, *args: object):
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub(("127.0.0.1", 0), Handler)
    server.ranges = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def fetched(tmp_path: Path, endpoint: str, **more: str) -> str:
    """What a fresh process says: the library reads its settings when it is imported."""
    environment = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DOWNLOAD_TIMEOUT": "5",
        "PATH": "/usr/bin",
        "NO_PROXY": "127.0.0.1",
        **more,
    }
    done = subprocess.run(
        [sys.executable, "-c", FETCH],
        env=environment,
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def address(hub: Hub) -> str:
    return f"http://127.0.0.1:{hub.server_address[1]}"


def test_fetched_once_then_found_without_a_network(hub: Hub, tmp_path: Path):
    said = f"ok {hub.announced} {len(CONTENT)}"
    assert fetched(tmp_path, address(hub)) == said
    assert fetched(tmp_path, address(hub), HF_HUB_OFFLINE="1") == said


def test_continued_where_it_broke_off(hub: Hub, tmp_path: Path):
    hub.breaks_after = 11 << 20
    assert fetched(tmp_path, address(hub)) == f"ok {hub.announced} {len(CONTENT)}"
    assert hub.ranges == [f"bytes={10 << 20}-"]


def test_another_content_than_announced_is_refused_and_not_kept(hub: Hub, tmp_path: Path):
    hub.announced = "0" * 64
    for _ in range(2):
        answer = fetched(tmp_path, address(hub))
        assert answer.startswith("refused")
        assert "SHA-256" in answer
    assert not list(tmp_path.rglob("blobs/" + "0" * 64))


def test_what_the_hub_does_not_have(hub: Hub, tmp_path: Path):
    hub.missing = True
    answer = fetched(tmp_path, address(hub))
    assert answer.startswith(f"refused the hub has no {REPO}/model.safetensors; https://")


def test_no_network(tmp_path: Path):
    answer = fetched(tmp_path, "http://127.0.0.1:9")
    assert answer.startswith("refused")
    assert "cannot be reached" in answer
    assert "\n" not in answer


def test_an_endpoint_that_is_no_address(tmp_path: Path):
    answer = fetched(tmp_path, "http://[::1")  # the library prints a line of its own before
    assert answer.splitlines()[-1] == "refused HF_ENDPOINT is no address of a hub: Invalid IPv6 URL"


def test_offline_mode(hub: Hub, tmp_path: Path):
    assert "HF_HUB_OFFLINE" in fetched(tmp_path, address(hub), HF_HUB_OFFLINE="1")


def test_a_model_without_published_weights():
    with pytest.raises(UserError, match="no weights are published for vgg16; there are some for"):
        fetch("vgg16")
