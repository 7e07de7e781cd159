"""The Predictor, from JPEG files to answers, against bare ONNX Runtime on ready tensors.

    python benchmarks/predictor_against_runtime.py ../shared/data/clothing.zip

Xception with random weights (--model for another) is exported once. One side is a session of ONNX
Runtime that is handed the same normalised batch again and again; the other is `Predictor.stream`
over as many JPEG files: reading, decoding, resizing, normalising, computing and softmax. They take
turns. The bar is 0.95 of the bare runtime's images per second. Prints a row of a Markdown table.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from xception.data.folders import open_photos
from xception.data.preprocess import Preprocess
from xception.deploy.export import write
from xception.deploy.runtime import Predictor
from xception.models.zoo import create_model, find_entry
from xception.weights.card import Architecture, Card

BAR = 0.95  # of the bare runtime's images per second


def exported(name: str, size: int, file: Path) -> Path:
    torch.manual_seed(0)
    model = create_model(name).eval()
    model.card = Card(
        architecture=Architecture(name=name, options=model.options),
        task="classification",
        classes=tuple(str(i) for i in range(model.options["num_classes"])),
        preprocess=Preprocess(size=size),
    )
    write(model, "onnx", file)
    return file


def unpacked(photos: Path, count: int, folder: Path) -> list[Path]:
    """JPEG files; the same ones again if there are too few."""
    opened = open_photos(photos, for_training=False)
    names = [one for one in opened.photos if one.name.lower().endswith((".jpg", ".jpeg"))]
    files = []
    for number in range(count):
        file = folder / f"{number:06}.jpg"
        file.write_bytes(opened.read(names[number % len(names)]))
        files.append(file)
    return files


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", type=Path)
    parser.add_argument("--model", default="xception")
    parser.add_argument("--size", type=int, help="pixels; by default the model's")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--batches", type=int, default=8, help="of a round")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    size = options.size or find_entry(options.model).size
    count = options.batch * options.batches
    with tempfile.TemporaryDirectory() as folder:
        file = exported(options.model, size, Path(folder) / "m.onnx")
        files = unpacked(options.photos, count, Path(folder))
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        predictor = Predictor(file)
        ready = torch.cat([predictor.tensor(one) for one in files[: options.batch]])
        tensors = np.ascontiguousarray(ready.numpy())

        def bare() -> float:
            start = time.perf_counter()
            for _ in range(options.batches):
                session.run(None, {"image": tensors})
            return count / (time.perf_counter() - start)

        def whole() -> float:
            start = time.perf_counter()
            answered = sum(1 for _ in predictor.stream(files, options.batch))
            assert answered == count
            return count / (time.perf_counter() - start)

        bare(), whole()
        rounds = []
        for number in range(options.rounds):
            sides = (bare, whole) if number % 2 else (whole, bare)
            speeds = {side.__name__: side() for side in sides}
            rounds.append((speeds["bare"], speeds["whole"]))
    ratios = [b / a for a, b in rounds]
    good = statistics.median(ratios) >= BAR
    print(
        f"| {options.model}, {size} px, batches of {options.batch}, {options.rounds} rounds of "
        f"{count} photos | {statistics.median(a for a, _ in rounds):.2f} | "
        f"{statistics.median(b for _, b in rounds):.2f} | {statistics.median(ratios):.3f} "
        f"({min(ratios):.3f} – {max(ratios):.3f}) | ≥ {BAR} | {'met' if good else 'NOT MET'} |"
    )
    sys.exit(not good)


if __name__ == "__main__":
    main()
