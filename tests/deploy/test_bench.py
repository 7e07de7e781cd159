from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from small_networks import saved, small

from xception.deploy import bench
from xception.deploy.bench import Row, Subject, file_bytes, measure, timed
from xception.deploy.bench_picture import draw
from xception.deploy.engines import open_engine


class Slow:
    """An engine that takes as long as it is told, on a clock of its own."""

    name, precision, minimum_size, card = "torch", "fp32", 1, None

    def __init__(self, clock: list[float], seconds: float, calls: list[str], label: str):
        self.clock, self.seconds, self.calls, self.label = clock, seconds, calls, label

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.clock[0] += self.seconds * len(x)
        self.calls.append(self.label)
        return x


def test_all_take_turns(monkeypatch: pytest.MonkeyPatch):
    clock, calls = [0.0], list[str]()
    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock[0])
    subjects: list[Any] = [
        Subject(label, Path(), Slow(clock, seconds, calls, label))  # pyright: ignore[reportArgumentType]
        for label, seconds in (("a", 0.25), ("b", 0.5))
    ]
    image = torch.zeros(1, 1, 2, 2)
    single, batched = timed(subjects, image, image.repeat(4, 1, 1, 1), 9.0)
    assert set(single[0]) == {0.25}
    assert set(single[1]) == {0.5}
    assert set(batched[0]) == {1.0}
    assert set(batched[1]) == {2.0}
    assert len(single[0]) == len(single[1]) >= 10
    measured = calls[8:]  # behind the warm-up
    assert measured[:8] == ["a", "b", "a", "b", "b", "a", "a", "b"]


def test_a_real_network(tmp_path: Path):
    network = small("mobilenet_v1", size=32)
    path = saved(tmp_path / "m.safetensors", network)
    subject = Subject("as trained", path, open_engine(path))
    (row,) = measure([subject], torch.zeros(1, 3, 32, 32), batch_size=2, seconds=0.01)
    assert (row.name, row.engine, row.precision) == ("as trained", "torch", "fp32")
    assert row.file_bytes == path.stat().st_size
    assert 0 < row.p50_ms <= row.p99_ms
    assert row.images_per_second > 0
    assert 0 < row.memory_bytes < 2**30
    assert row.score is None


def test_the_weights_beside_count(tmp_path: Path):
    (tmp_path / "m.xml").write_bytes(b"12")
    (tmp_path / "m.bin").write_bytes(b"345")
    assert file_bytes(tmp_path / "m.xml") == 5
    assert file_bytes(tmp_path / "m.bin") == 3


def test_the_picture(tmp_path: Path):
    row = Row("as trained", "torch", "fp32", 10, 20, 30.0, 45.0, 33.0, 2**28, 0.9)
    rows = [row, row._replace(name="int8", engine="onnxruntime", precision="int8", p50_ms=12.0)]
    for name, metric in (("a.png", "top1"), ("b.png", None)):
        draw(rows, tmp_path / name, title="xception, 299x299 pixels", metric=metric)
        with Image.open(tmp_path / name) as image:
            assert min(image.size) > 150
