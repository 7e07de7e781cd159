"""Ray itself is in one slow test, where it is installed; in the others a loop is in its place."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from xception.data.images import ImageError
from xception.data.preprocess import Preprocess
from xception.deploy import extras, on_ray
from xception.deploy.on_ray import Share, workers_on_ray
from xception.deploy.runtime import Prediction, Predictor
from xception.errors import UserError
from xception.models.zoo import create_model
from xception.weights.card import Architecture, Card
from xception.weights.model_file import save_model

arrow = pytest.importorskip(
    "pyarrow", reason="NOT TESTED: Ray's tables, because pyarrow is missing"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = create_model("xception", num_classes=3, width=0.02, middle=0).eval()
    torch.nn.init.normal_(model.classifier.weight, std=0.5)
    card = Card(
        architecture=Architecture(name="xception", options=model.options),
        task="classification",
        classes=("cat", "dog", "fish"),
        preprocess=Preprocess(size=48),
    )
    folder = tmp_path_factory.mktemp("a run é")
    save_model(folder / "model.safetensors", model, card)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty of them; the seventh is damaged."""
    folder = tmp_path_factory.mktemp("photos é")
    rng = np.random.default_rng(0)
    for number in range(20):
        noise = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        noise.resize((64, 48), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")
    (folder / "6.jpg").write_bytes(b"\xff\xd8\xff nothing more")
    return folder


class Loop:
    """In Ray's place: what is handed to it is done at once, block by block, in this process."""

    def __init__(self, *machines: dict[str, float]):
        self.data = self
        self.machines, self.workers, self.blocks = machines, 0, 0

    def nodes(self) -> list[dict[str, Any]]:
        return [
            *({"Alive": True, "Resources": one} for one in self.machines),
            {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
        ]

    def put(self, value: Any) -> list[Any]:
        return [value]

    def get(self, reference: list[Any]) -> Any:
        return reference[0]

    def ActorPoolStrategy(self, size: int) -> int:
        return size

    def from_arrow_refs(self, references: list[list[Any]]) -> "Loop":
        self.tables = [self.get(one) for one in references]
        self.blocks = len(self.tables)
        return self

    def map_batches(self, kind: Any, **options: Any) -> "Loop":
        self.workers = options["compute"]
        worker = kind(*options["fn_constructor_args"])
        assert all(len(table) <= options["batch_size"] for table in self.tables)
        self.tables = map(worker, self.tables)
        return self

    def iter_batches(self, **_: Any) -> Iterator[Any]:
        return iter(self.tables)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    found = Loop({"CPU": 1.0})
    monkeypatch.setattr(extras, "ray", lambda: found)
    monkeypatch.setattr(on_ray, "_cluster", lambda: _given(found))
    return found


class _given:
    def __init__(self, ray: Loop):
        self.ray = ray

    def __enter__(self) -> Loop:
        return self.ray

    def __exit__(self, *_: object) -> None:
        pass


def test_the_answers_are_those_of_the_predictor(
    run: Path, photos: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
):
    predictor = Predictor(run)
    monkeypatch.chdir(photos)
    names = [f"{number}.jpg" for number in range(20)]
    paths: list[str | Path] = [
        *map(Path, names[:10]),
        *(f"file://{photos}/{n}" for n in names[10:]),
    ]
    with workers_on_ray(predictor, device="cpu") as stream:
        found = list(stream(iter(paths), 2))
        assert list(stream([], 2)) == []
    assert (loop.workers, loop.blocks) == (1, 2)
    assert [path for path, _ in found] == [str(path) for path in paths]
    for (path, answer), expected in zip(found, predictor.stream(paths, 2), strict=True):
        if path == "6.jpg":
            assert isinstance(answer, ImageError)
            assert isinstance(expected[1], ImageError)
            assert (answer.name, answer.reason) == ("6.jpg", expected[1].reason)
        else:
            assert isinstance(answer, Prediction)
            assert isinstance(expected[1], Prediction)
            assert answer.classes == predictor.classes
            np.testing.assert_array_equal(answer.probabilities, expected[1].probabilities)


def test_a_name_that_is_no_text_comes_back(run: Path, photos: Path, tmp_path: Path, loop: Loop):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jpg"))
    path.write_bytes((photos / "0.jpg").read_bytes())
    with workers_on_ray(Predictor(run)) as stream:
        ((name, answer),) = stream([path], 2)
    assert name == str(path)
    assert isinstance(answer, Prediction)


def test_what_a_worker_cannot_do_is_said_as_without_ray(
    run: Path, photos: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise UserError("the network answers with NaN")

    with workers_on_ray(Predictor(run)) as stream:
        monkeypatch.setattr(Predictor, "stream", fail)
        with pytest.raises(UserError, match=r"^the network answers with NaN$"):
            list(stream([photos / "0.jpg"], 2))


@pytest.mark.parametrize(
    ("machines", "workers", "device", "share"),
    [
        ([{"CPU": 8.0}], None, "auto", Share(1, 8, "cpu")),
        ([{"CPU": 8.0}, {"CPU": 4.0}], None, "cpu", Share(2, 4, "cpu")),
        ([{"CPU": 8.0}, {"CPU": 4.0}], 3, "cpu", Share(3, 4, "cpu")),
        ([{"CPU": 8.0}, {"CPU": 4.0}], 12, "cpu", Share(12, 1, "cpu")),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}], None, "auto", Share(3, 4, "cuda")),
        ([{"CPU": 8.0, "GPU": 2.0}], 1, "cuda", Share(1, 8, "cuda")),
        ([{"CPU": 8.0, "GPU": 2.0}], None, "cpu", Share(1, 8, "cpu")),
    ],
)
def test_how_the_machines_are_shared(
    run: Path, machines: list[dict[str, float]], workers: int | None, device: str, share: Share
):
    model = run / "model.safetensors"
    assert on_ray._share(Loop(*machines), model, workers, device) == share


@pytest.mark.parametrize(
    ("workers", "device", "said"),
    [
        (3, "cpu", "--workers 3: Ray has 2 cores"),
        (None, "cuda", "--workers 0: Ray has 0 graphics cards"),
        (None, "mps", "--device mps: Ray's workers compute on auto, cpu, cuda"),
    ],
)
def test_what_is_not_there_is_refused(run: Path, workers: int | None, device: str, said: str):
    with pytest.raises(UserError, match=said):
        on_ray._share(Loop({"CPU": 2.0}), run / "model.safetensors", workers, device)


@pytest.mark.slow
def test_two_workers_of_ray_write_the_same_rows(run: Path, photos: Path, tmp_path: Path):
    pytest.importorskip("ray", reason='NOT TESTED: Ray is missing; pip install "xception[ray]"')

    def rows(name: str, *options: str) -> list[dict[str, Any]]:
        command = [sys.executable, "-m", "xception", "predict", str(run)]
        command += [
            str(photos),
            f"file://{photos}",
            "--jsonl",
            str(tmp_path / name),
            "--batch-size",
            "2",
            "--quiet",
            *options,
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert process.returncode == 1, process.stderr  # one photo is damaged
        return [json.loads(line) for line in (tmp_path / name).read_text("utf-8").splitlines()]

    expected = rows("here.jsonl")
    found = rows("ray.jsonl", "--engine", "ray", "--workers", "2")
    assert len(found) == 40
    assert sum("error" in row for row in found) == 2
    for row, other in zip(found, expected, strict=True):
        assert row["path"] == other["path"]
        assert row.get("error") == other.get("error")
        assert [one["label"] for one in row["top"]] == [one["label"] for one in other["top"]]
        shares = [[one["probability"] for one in some["top"]] for some in (row, other)]
        assert shares[0] == pytest.approx(shares[1], abs=1e-6)
