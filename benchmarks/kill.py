"""Kill one training many times at random moments, resume it each time, and compare the last bytes.

    python benchmarks/kill.py [--masks] [--kills 50] [--epochs 600] [--seed 0]

The training (small squares of three colours, a loader process, weight averaging, mixup; with
`--masks` small scenes of shapes, and a network that segments them) runs as a
user's would, `xception train`, in a process of its own. It is killed with SIGKILL after a random
time, start-up included, and resumed, until it was killed `--kills` times; then it may finish. The
same training, never killed, must leave the same bytes in `model.safetensors`.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from xception.data.scenes import write_scenes

COLOURS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40)}
COUNTS = {"train": 14, "validation": 5, "test": 4}
SETTINGS = {
    "preprocess.size": 16,
    "model_options": "{width: 0.01, middle: 0, stem_stride: 1}",
    "augment.mixup": 0.2,
    "batch_size": 8,
    "average_decay": 0.99,
    "checkpoint_minutes": 0.005,
}


BACKBONE = "backbone: xception, backbone_options: {width: 0.01, middle: 0}, rates: [1]"
WIDTHS = "encoder_channels: 8, low_level_channels: 4, decoder_channels: 8"
MASK_SETTINGS = {
    "model_options": f"{{{BACKBONE}, {WIDTHS}}}",
    "joint.crop": 33,
    "joint.shorter_side": 36,
    "batch_size": 4,
    "average_decay": 0.99,
    "checkpoint_minutes": 0.005,
}


def paint(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
        for name, colour in COLOURS.items():
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                pixels = np.array(colour) + rng.normal(0, 40, (20, 20, 3))
                image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
                image.save(folder / split / name / f"{number}.png")


def command(photos: Path, run: Path, settings: dict[str, object]) -> list[str]:
    program = [sys.executable, "-m", "xception", "train", str(photos), "--out", str(run), "--quiet"]
    if (run / "config.yaml").exists():
        return [*program, "--resume"]
    return [*program, *(word for k, v in settings.items() for word in ("--set", f"{k}={v}"))]


def start(photos: Path, run: Path, settings: dict[str, object]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command(photos, run, settings), stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--masks", action="store_true", help="of a network that segments")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=600)
    parser.add_argument("--longest", type=float, default=9.0, help="seconds before a kill")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        photos, whole, killed = (Path(folder) / name for name in ("photos", "whole", "killed"))
        if arguments.masks:
            write_scenes(photos, 60, 40, 0)
        else:
            paint(photos)
        settings = {**(MASK_SETTINGS if arguments.masks else SETTINGS), "epochs": arguments.epochs}
        began = time.monotonic()
        assert start(photos, whole, settings).wait() == 0
        print(f"never killed: {time.monotonic() - began:.0f} s", file=sys.stderr)
        kills = starts = saved = 0
        while True:
            process = start(photos, killed, settings)
            starts += 1
            if kills == arguments.kills:
                assert process.wait() == 0
                break
            try:
                status = process.wait(moments.uniform(0.1, arguments.longest))
                sys.exit(f"it ended with status {status} after {kills} kills: more --epochs")
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                saved += (killed / "last.ckpt").exists()
        files = [run / "model.safetensors" for run in (whole, killed)]
        same = files[0].read_bytes() == files[1].read_bytes()
    print(f"| {kills} SIGKILLs, {starts} starts, {saved} of them after the first checkpoint "
          f"| {'the same bytes' if same else 'OTHER BYTES'} |")  # fmt: skip
    sys.exit(not same)


if __name__ == "__main__":
    main()
