"""An 88 MB Keras file to a model file of ours, and back: seconds and peak memory.

    python benchmarks/convert_large.py [--rounds 5]

Xception with random weights is written by h5py as Keras 2 lays it out. Then `xception convert` runs
in a process of its own, as a user would run it, start and all. Its peak is the resident memory that
the kernel saw at most, which an idle `xception` (torch imported, nothing done) already has a part
of: that part is shown beside. The bars are 5 s and three times the file.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

SECONDS, TIMES = 5.0, 3.0
# What the verb imports, so that what is left is the conversion's own.
IDLE = "import xception.cli.convert"


class Ran(NamedTuple):
    """One process."""

    seconds: float
    cpu_seconds: float  # what is left of the former where nothing else runs, and disks are quick
    peak_bytes: int


def write_keras(path: Path) -> None:
    """Xception's weights, every one of them random, as `model.save_weights` of Keras 2 writes.

    Called in a process of its own: the kernel counts what a parent holds when it starts a child to
    the child's peak, so that this one must stay small.
    """
    import h5py
    import numpy as np
    import torch

    from xception.models.zoo import create_model
    from xception.weights.names.sources import SOURCES

    (source,) = (one for one in SOURCES if (one.layout, one.model) == ("keras2", "xception"))
    with torch.device("meta"):
        ours = create_model("xception", **source.options).state_dict()
    random = np.random.default_rng(0)
    layers: dict[str, dict[str, np.ndarray]] = {}
    for row in source.rows(ours):
        layer, _, weight = row.theirs.rpartition("/")
        shape = row.their_shape(tuple(ours[row.ours].shape))
        values = random.uniform(0.5, 1.5, shape) * (0.05 if len(shape) > 1 else 1)
        layers.setdefault(layer, {})[f"{layer}/{weight}:0"] = values.astype(np.float32)
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.encode() for layer in layers]
        file.attrs["backend"], file.attrs["keras_version"] = b"tensorflow", b"2.15.0"
        for layer, weights in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in weights]
            for name, values in weights.items():
                group.create_dataset(name, data=values)


def run(*command: str) -> Ran:
    """Time a process, and see how large it became."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: status {process.returncode}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Ran(seconds, cpu_seconds, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", type=Path, metavar="FILE", help="only write the Keras file")
    given = parser.parse_args()
    if given.write:
        write_keras(given.write)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        keras, ours, back = (
            Path(folder) / name for name in ("k.h5", "o.safetensors", "b.weights.h5")
        )
        run(sys.executable, __file__, "--write", str(keras))
        size = keras.stat().st_size
        idle = max(run(sys.executable, "-c", IDLE).peak_bytes for _ in range(given.rounds))
        print(f"the file: {size / 1e6:.1f} MB; an idle process: {idle / 1e6:.0f} MB")
        met = convert("Keras to ours", keras, ours, given.rounds, idle)
        convert("ours to Keras", ours, back, given.rounds, idle)
    bars = f"{SECONDS:g} s and {TIMES:g} times the file"
    print(f"bars of the way in, {bars}: {'met' if met else 'missed'}")
    return 0 if met else 1


def convert(title: str, source: Path, out: Path, rounds: int, idle: int) -> bool:
    """Print how long it takes and how large it becomes; whether that is within the bars."""
    verb = (sys.executable, "-m", "xception", "convert", "--quiet", "--overwrite")
    ran = [run(*verb, str(source), "--to", str(out)) for _ in range(rounds)]
    seconds = sorted(one.seconds for one in ran)
    cpu = statistics.median(one.cpu_seconds for one in ran)
    median, peak = statistics.median(seconds), max(one.peak_bytes for one in ran)
    size = source.stat().st_size
    print(
        f"{title}: {median:.2f} s ({seconds[0]:.2f}–{seconds[-1]:.2f}), {cpu:.2f} s of CPU, "
        f"peak {peak / 1e6:.0f} MB, "
        f"{peak / size:.2f} times the file, {(peak - idle) / size:.2f} beyond the idle process"
    )
    return median < SECONDS and peak < TIMES * size


if __name__ == "__main__":
    sys.exit(main())
