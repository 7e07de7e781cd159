import http.client
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from xception.deploy.runtime import Predictor

KEY = "correct-horse-battery-staple"


def ask(port: int, method: str, path: str, body: bytes | None = None, key: str = KEY):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body, {"Authorization": f"Bearer {key}"})
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


def test_a_run_is_served_until_a_signal(photos: Path, trained: Path, tmp_path: Path):
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    arguments = ["--port", "0", "--api-key-file", str(keys), "--host", "0.0.0.0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "xception", "serve", str(trained), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    with process:
        try:
            line = {"event": ""}
            while line["event"] != "listening":
                line = json.loads(process.stderr.readline())
            port = int(line["url"].rstrip("/").rpartition(":")[2])
            data = (photos / "test/red/0.png").read_bytes()
            status, content = ask(port, "POST", "/predict", data)
            assert status == 200
            label, share = Predictor(trained)(data).top(1)[0]
            best = content["answers"][0]["top"][0]
            assert best["label"] == label
            assert best["probability"] == pytest.approx(share, abs=1e-5)
            assert ask(port, "POST", "/predict", data, "wrong")[0] == 401
            process.send_signal(signal.SIGTERM)
            out, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 143
    assert out == ""
    events = [json.loads(line)["event"] for line in errors.splitlines()]
    assert events == ["request", "request", "draining", "stopped"]


def test_what_is_asked_for_wrongly(xception, trained: Path, tmp_path: Path):
    for arguments, message in [
        ([tmp_path], "no model.safetensors there"),
        ([trained, "--host", "0.0.0.0"], "others could ask without a key; give --api-key-file"),
        ([trained, "--host", "::"], "others could ask without a key"),
        ([trained, "--host", "192.0.2.1", "--allow-anonymous"], "cannot listen on 192.0.2.1"),
        ([trained, "--port", "70000"], "70000 is not in the range"),
        ([trained, "--api-key-file", tmp_path / "none"], "no such file"),
        ([trained, "--queue", "3"], "may bring 16 photos, but the queue holds 3"),
        ([trained, "--device", "tpu"], "tpu"),
    ]:
        began = time.monotonic()
        result = xception("serve", *arguments)
        assert result.status == 2, arguments
        assert message in result.stderr
        assert result.stdout == ""
        assert time.monotonic() - began < 10


def test_libraries_that_are_missing_are_named(xception, trained: Path, monkeypatch):
    monkeypatch.setattr("xception.cli.serve.LIBRARIES", ("fastapi", "no_such_library"))
    result = xception("serve", trained)
    assert result.status == 2
    assert "serving needs no_such_library; install with: pip install 'xception[serve]'" in (
        result.stderr
    )


def test_a_picture_is_no_model(xception, tmp_path: Path):
    Image.new("RGB", (9, 9)).save(tmp_path / "photo.png")
    result = xception("serve", tmp_path / "photo.png")
    assert result.status == 2
    assert "photo.png" in result.stderr
