"""What callers get, over real connections."""

import io
import json
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from live_server import COLOURS, ColourModel, Live, live, photo

from xception.deploy.server import logs
from xception.deploy.server.keys import Keys
from xception.deploy.server.limits import Limits
from xception.deploy.server.shield import Doors

KEY = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    limits = Limits(photos=3, body_bytes=200_000, pixels=1000)
    with live(ColourModel(), limits, Doors(local_only=True)) as running:
        yield running


def multipart(*files: bytes) -> tuple[bytes, dict[str, str]]:
    parts = [
        b'--edge\r\nContent-Disposition: form-data; name="photo"; filename="%d.png"\r\n\r\n' % n
        + file
        + b"\r\n"
        for n, file in enumerate(files)
    ]
    kind = {"Content-Type": "multipart/form-data; boundary=edge"}
    return b"".join(parts) + b"--edge--\r\n", kind


def test_the_bytes_of_a_file_get_an_answer(server: Live):
    reply = server.predict(photo((200, 50, 0)))
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    assert reply.json["task"] == "classification"
    (answer,) = reply.json["answers"]
    assert [one["label"] for one in answer["top"]] == ["red", "green", "blue"]
    assert [one["probability"] for one in answer["top"]] == pytest.approx([0.8, 0.2, 0])
    shorter = server.ask("POST", "/predict?top=1", photo((0, 100, 100)))
    assert [one["label"] for one in shorter.json["answers"][0]["top"]] == ["green"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.parametrize("said", ["image/jpeg", "application/x-www-form-urlencoded", ""])
def test_the_bytes_decide_and_not_what_is_said_of_them(server: Live, kind: str, said: str):
    reply = server.ask("POST", "/predict", photo((0, 0, 255), kind), {"Content-Type": said})
    assert reply.json["answers"][0]["top"][0]["label"] == "blue"


def test_several_files_get_their_answers_in_order_and_one_that_is_damaged_its_reason(server: Live):
    body, kind = multipart(photo((255, 0, 0)), b"no photo", photo((0, 0, 255)))
    reply = server.ask("POST", "/predict", body, kind)
    assert reply.status == 200
    first, damaged, last = reply.json["answers"]
    assert [answer["name"] for answer in (first, damaged, last)] == ["0.png", "1.png", "2.png"]
    assert (first["top"][0]["label"], last["top"][0]["label"]) == ("red", "blue")
    assert damaged["error"] == "not a JPEG, PNG, WebP, BMP, GIF or TIFF image"
    assert "top" not in damaged


def test_nothing_readable_is_no_success(server: Live):
    reply = server.predict(b"\xff\xd8\xff nothing more")
    assert reply.status == 422
    assert "JPEG" in reply.json["answers"][0]["error"]
    reply = server.predict(photo(size=(40, 26)))  # 1040 pixels of 1000
    assert reply.status == 422
    assert "40 × 26 pixels, more than the 1,000 allowed" in reply.json["answers"][0]["error"]
    for place in (b"file:///etc/passwd", b"http://127.0.0.1/photo.jpg", b'{"url": "x"}'):
        assert server.predict(place).status == 422  # nothing is fetched for anybody


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/predict", b"", {}, 400),
        ("POST", "/predict", b"x", {"Content-Type": "multipart/form-data"}, 400),
        ("POST", "/predict", *multipart(), 400),
        ("POST", "/predict", *multipart(b"1", b"2", b"3", b"4"), 413),
        ("POST", "/predict", b"x" * 200_001, {}, 413),
        ("POST", "/predict", b"x", {"Content-Encoding": "gzip"}, 415),
        ("POST", "/predict", b"x", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("POST", "/predict", b"x", {"Host": "evil.example:80"}, 421),
        ("GET", "/card", None, {"Host": "evil.example"}, 421),
        ("POST", "/predict?top=0", b"x", {}, 422),
        ("POST", "/predict?top=many", b"x", {}, 422),
        ("GET", "/predict", None, {}, 405),
        ("OPTIONS", "/predict", None, {"Origin": "http://evil.example"}, 405),
        ("GET", "/docs", None, {}, 404),
        ("GET", "/../../etc/passwd", None, {}, 404),
        ("GET", "/page.js/../limits.py", None, {}, 404),
        ("GET", "/%00%ff", None, {}, 404),
        ("GET", "http://127.0.0.1/card", None, {}, 404),
    ],
)  # fmt: skip
def test_what_is_asked_for_wrongly(
    server: Live, method: str, path: str, body: bytes | None, headers: dict[str, str], status: int
):
    reply = server.ask(method, path, body, headers)
    assert reply.status == status
    assert list(reply.json) == ["error"]
    assert reply.json["error"]
    assert "access-control-allow-origin" not in reply.headers


def test_pages_of_other_sites_may_not_post():
    """Nor where their browser says it by `Origin` alone, as it does to plain http elsewhere."""
    with live(ColourModel()) as server:
        for origin, host, status in (
            ("http://evil.example", "192.0.2.7:8000", 403),
            ("http://192.0.2.7:8001", "192.0.2.7:8000", 403),
            ("http://192.0.2.7", "192.0.2.7:8000", 403),
            ("null", "192.0.2.7:8000", 403),  # a page without an address
            ("", "192.0.2.7:8000", 403),
            ("http://192.0.2.7:8000", "192.0.2.7:8000", 200),
            ("http://[::1]:8000", "[::1]:8000", 200),
            ("http://Shop.example", "shop.example:80", 200),
            ("https://shop.example", "shop.example", 200),  # behind a proxy that speaks TLS
        ):
            reply = server.ask("POST", "/predict", photo(), {"Origin": origin, "Host": host})
            assert reply.status == status, origin
        assert server.ask("GET", "/card", headers={"Origin": "http://evil.example"}).status == 200
        renamed = {"Origin": "https://shop.example", "Sec-Fetch-Site": "same-origin"}  # by a proxy
        assert server.ask("POST", "/predict", photo(), renamed).status == 200
    with live(ColourModel(), doors=Doors(Keys([KEY]))) as server:
        known = {"Authorization": f"Bearer {KEY}", "Origin": "http://shop.example"}
        assert server.ask("POST", "/predict", photo(), known).status == 200


def test_the_length_of_a_body_must_be_said(server: Live):
    with server.connect() as connection:
        head = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        connection.sendall(head + b"1\r\nx\r\n" * 20_000)
        assert connection.recv(65536).startswith(b"HTTP/1.1 411 ")


def test_every_answer_has_the_headers_of_caution(server: Live):
    for reply in (
        server.ask("GET", "/"),
        server.ask("GET", "/nowhere"),
        server.predict(photo()),
        server.predict(b"x" * 200_001),
    ):
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
        assert "unsafe" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert reply.headers["x-frame-options"] == "DENY"
        assert "server" not in reply.headers


def test_the_page_is_kept_by_browsers_and_answers_are_not(server: Live):
    page = server.ask("GET", "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert b"<h1>" in page.content
    again = server.ask("GET", "/", headers={"If-None-Match": page.headers["etag"]})
    assert (again.status, again.content) == (304, b"")
    assert server.ask("GET", "/page.js").headers["content-type"].startswith("text/javascript")
    assert server.predict(photo()).headers["cache-control"] == "no-store"


def test_health_card_and_openapi(server: Live):
    assert server.ask("GET", "/health").json == {"status": "ok"}
    assert server.ask("GET", "/ready").json == {"status": "ready"}
    card = server.ask("GET", "/card").json
    assert card["classes"] == list(COLOURS)
    assert "training" not in card  # it knows paths of the machine it was trained on
    schema = server.ask("GET", "/openapi.json").json
    assert set(schema["paths"]) == {"/predict", "/health", "/ready", "/card", "/metrics"}
    content = schema["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "image/*"}


def test_metrics_count_what_happened():
    with live(ColourModel()) as server:
        for _ in range(3):
            server.predict(photo())
        server.predict(b"no photo")
        server.ask("GET", "/secret-path")
        server.ask("POST", "/predict", b"")
        text = server.ask("GET", "/metrics")
        assert text.headers["content-type"].startswith("text/plain")
        assert server.figure('xception_requests_total{path="/predict",status="200"}') == 3
        assert server.figure('xception_requests_total{path="other",status="404"}') == 1
        assert server.figure('xception_photos_total{outcome="answered"}') == 3
        assert server.figure('xception_photos_total{outcome="unreadable"}') == 1
        assert server.figure('xception_refusals_total{reason="empty"}') == 1
        assert server.figure("xception_batch_photos_sum") == 3
        assert server.figure("xception_photos_inside") == 0
        assert server.figure("xception_body_bytes") == 0
        assert server.figure("xception_connections") == 1
        assert b"secret" not in text.content


def test_keys():
    with live(ColourModel(), doors=Doors(Keys([KEY]))) as server:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
            for method, path in (("POST", "/predict"), ("GET", "/card"), ("GET", "/metrics")):
                reply = server.ask(method, path, None, headers)
                assert reply.status == 401
                assert reply.headers["www-authenticate"] == "Bearer"
        for path in ("/", "/page.js", "/page.css", "/icon.svg", "/health", "/ready"):
            assert server.ask("GET", path).status == 200
        good = {"Authorization": f"Bearer {KEY}"}
        assert server.ask("POST", "/predict", photo(), good).status == 200
        assert server.ask("GET", "/card", headers={**good, "Host": "any.example"}).status == 200


def test_photos_that_come_together_are_computed_together():
    model = ColourModel(seconds=0.1)
    with live(model, batch_size=8, wait_seconds=0.01) as server, ThreadPoolExecutor(9) as pool:
        first = pool.submit(server.predict, photo())
        server.wait_for(lambda: model.batches)
        colours = [(n, 100 - n, 0) for n in range(8)]
        replies = list(pool.map(lambda colour: server.predict(photo(colour)), colours))
        assert first.result().status == 200
    assert sum(model.batches) == 9
    assert max(model.batches) > 2
    assert threading.main_thread().ident not in model.threads
    assert len(model.threads) == 1
    for (red, *_), reply in zip(colours, replies, strict=True):
        shares = {one["label"]: one["probability"] for one in reply.json["answers"][0]["top"]}
        assert shares["red"] == pytest.approx(red / 100)  # nobody got another's answer


def test_a_fault_is_written_down_and_told_without_its_inside():
    class Broken(ColourModel):
        def compute(self, prepared):
            raise ZeroDivisionError("the secret of the house")

    stream = io.StringIO()
    with logs.json_logs(stream=stream), live(Broken()) as server:
        reply = server.predict(photo())
        assert server.ask("GET", "/health").status == 200
    assert reply.status == 500
    assert "secret" not in reply.content.decode()
    number = reply.headers["x-request-id"]
    assert number in reply.json["error"]
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    (fault,) = [line for line in lines if line["event"] == "fault"]
    assert fault["id"] == number
    assert "ZeroDivisionError: the secret of the house" in fault["traceback"]


def test_the_log_knows_requests_but_not_photos():
    stream = io.StringIO()
    with logs.json_logs(stream=stream), live(ColourModel()) as server:
        body, kind = multipart(photo())
        server.ask("POST", "/predict?top=2", body.replace(b"0.png", b"my-diary.png"), kind)
        server.ask("GET", "/my-diary")
        assert logging.getLogger("xception.server").level == logging.INFO
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == [
        "listening", "request", "request", "draining", "stopped",
    ]  # fmt: skip
    assert lines[1] | {"time": 0, "id": 0, "ms": 0} == {
        "time": 0,
        "level": "info",
        "event": "request",
        "id": 0,
        "method": "POST",
        "path": "/predict",
        "status": 200,
        "ms": 0,
        "client": "127.0.0.1",
        "refused": None,
    }
    assert "diary" not in stream.getvalue()
