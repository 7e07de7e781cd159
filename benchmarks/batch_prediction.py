"""Many small photos through `xception predict`: memory, and what a kill in the middle costs.

    python benchmarks/batch_prediction.py --photos 100000

Makes a folder of JPEGs of 64x64 pixels (hard links of 1,000 different ones) and a small network,
and runs `xception predict FOLDER --csv … --resume` in a process that is killed (SIGKILL) after a
third of the rows, then again until it ends. The table must be that of an undisturbed run: every
photo once, in the same order, with the same answers (to 1e-6: which photos are computed together
moves the last digits). Memory is the largest resident set of the
second process above that of a run over a single photo; the bar is 400 MB.
"""

import argparse
import csv
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from xception.data.preprocess import Preprocess
from xception.deploy.export import write
from xception.models.zoo import create_model
from xception.weights.card import Architecture, Card
from xception.weights.model_file import save_model

DIFFERENT = 1000
MOST_BYTES = 400e6  # above the model, the bar


def make_model(folder: Path, kind: str) -> Path:
    torch.manual_seed(0)
    model = create_model("xception", num_classes=10, width=0.1, middle=0).eval()
    model.card = Card(
        architecture=Architecture(name="xception", options=model.options),
        task="classification",
        classes=tuple(str(i) for i in range(10)),
        preprocess=Preprocess(size=64),
    )
    if kind == "onnx":
        write(model, "onnx", folder / "m.onnx")
        return folder / "m.onnx"
    save_model(folder / "m.safetensors", model, model.card)
    return folder / "m.safetensors"


def make_photos(folder: Path, count: int) -> Path:
    rng = np.random.default_rng(0)
    first = []
    for number in range(count):
        file = folder / f"{number // 10_000:03}" / f"{number:07}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        if number < DIFFERENT:
            patches = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            Image.fromarray(patches).resize((64, 64), Image.Resampling.BICUBIC).save(file)
            first.append(file)
        else:
            os.link(first[number % DIFFERENT], file)
    return folder


def start(model: Path, photos: Path, table: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "xception", "predict", str(model), str(photos)]
    return subprocess.Popen(
        [*command, "--csv", str(table), "--resume", "--quiet", "--device", "cpu"]
    )


def peak_bytes(model: Path, photos: Path, table: Path) -> int:
    """The largest resident set of a whole run."""
    process = start(model, photos, table)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, status
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def rows(table: Path) -> list[list[str]]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def alike(found: list[list[str]], expected: list[list[str]]) -> bool:
    """The same paths in the same order, and probabilities that differ by no more than rounding."""
    if [row[0] for row in found] != [row[0] for row in expected]:
        return False
    values = [np.array([row[2:-1:2] for row in some[1:]], float) for some in (found, expected)]
    return bool(np.abs(values[0] - values[1]).max() <= 1e-6)


def size(table: Path) -> int:
    return table.stat().st_size if table.exists() else 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=int, default=100_000)
    parser.add_argument("--kind", choices=("torch", "onnx"), default="onnx")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_model(folder, options.kind)
        photos = make_photos(folder / "photos", options.photos)
        one = next(photos.rglob("*.jpg"))
        base = peak_bytes(model, one, folder / "one.csv")
        begin = time.perf_counter()
        whole = peak_bytes(model, photos, folder / "whole.csv")
        seconds = time.perf_counter() - begin
        expected = rows(folder / "whole.csv")
        assert len(expected) == options.photos + 1
        table = folder / "killed.csv"
        process = start(model, photos, table)
        while size(table) < size(folder / "whole.csv") // 3 and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = max(len(rows(table)) - 2, 0)
        again = peak_bytes(model, photos, table)
        same = alike(rows(table), expected)
    mb = 1e6
    good = same and max(whole, again) - base < MOST_BYTES
    print(
        f"| {options.photos:,} photos of 64 px, {options.kind} | {(whole - base) / mb:.0f} MB "
        f"above a single photo ({base / mb:.0f} MB), resumed {(again - base) / mb:.0f} MB | "
        f"{options.photos / seconds:,.0f} photos/s | killed after {kept:,} rows: the same table "
        f"{'yes' if same else 'NO'} | < {MOST_BYTES / mb:.0f} MB, restartable | "
        f"{'met' if good else 'NOT MET'} |"
    )
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"(this process: {largest:,} as the system counts)", file=sys.stderr)
    sys.exit(not good)


if __name__ == "__main__":
    main()
