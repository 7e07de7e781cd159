import io
import json
import logging
import threading

import pytest

from xception.deploy.server import logs


def lines(stream: io.StringIO) -> list[dict]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_one_document_a_line_whatever_is_said():
    stream = io.StringIO()
    with logs.json_logs(stream=stream):
        logs.log("request", status=200, client="127.0.0.1")
        logs.log("evil", text='"}\n{"event": "forged"\x1b[2J\u2028')
        logging.getLogger("somebody").warning("careful: %s", "é")
        logging.getLogger("somebody").info("not this")
        logging.getLogger("uvicorn.error").warning("nor this: a caller's mistake")
    first, evil, other = lines(stream)
    assert first["event"] == "request"
    assert (first["status"], first["client"], first["level"]) == (200, "127.0.0.1", "info")
    assert first["time"].endswith("+00:00")
    assert evil["text"].startswith('"}\n{')
    assert other["event"] == "careful: é"
    assert stream.getvalue().isascii()
    assert "\x1b" not in stream.getvalue()


def test_faults_say_where():
    stream = io.StringIO()
    with logs.json_logs(stream=stream, quiet=True):
        logs.log("request")
        try:
            raise KeyError("here")
        except KeyError as error:
            logs.log_fault("fault", error, id="1")
    (line,) = lines(stream)
    assert (line["event"], line["level"], line["id"]) == ("fault", "error", "1")
    assert "test_logs.py" in line["traceback"]


def test_loggers_are_as_before():
    root = logging.getLogger()
    before = root.handlers[:], root.level
    with logs.json_logs(stream=io.StringIO()):
        assert root.handlers != before[0]
    assert (root.handlers, root.level) == before


class Blocked(io.StringIO):
    """A pipe that nobody reads."""

    def __init__(self) -> None:
        super().__init__()
        self.reader = threading.Event()

    def write(self, text: str, /) -> int:
        self.reader.wait(10)
        return super().write(text)


def test_a_pipe_that_nobody_reads_stops_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logs, "MOST_WAITING", 3)
    stream = Blocked()
    with logs.json_logs(stream=stream) as writer:
        for number in range(20):
            logs.log("request", number=number)
        assert writer.dropped >= 16
        stream.reader.set()
    assert [line["number"] for line in lines(stream)][:3] == [0, 1, 2]


def test_a_closed_pipe_stops_nothing():
    stream = io.StringIO()
    with logs.json_logs(stream=stream) as writer:
        stream.close()
        logs.log("request")
    assert writer.dropped == 1
