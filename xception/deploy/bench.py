"""How quick, how large and how right a network is in each form that it has here.

All are asked in turn, again and again, so that whatever else the machine does meanwhile meets all
of them alike. Memory is measured in a fresh process for each.
"""

import multiprocessing
import resource
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from xception.deploy import extras
from xception.deploy.engines import Engine, kind_of, open_engine
from xception.deploy.material import Material
from xception.errors import UserError
from xception.weights.card import Card

WARM_UP = 3  # calls before anything is measured
LEAST_CALLS = 10
COMPARED = MappingProxyType(  # fields of a card, and what to call them
    {
        "task": "task",
        "architecture": "architecture",
        "classes": "list of classes",
        "preprocess": "preprocessing",
    }
)


class Subject(NamedTuple):
    """One form of a network."""

    name: str
    """"as trained", "torch, folded", "onnxruntime int8", …"""
    path: Path
    engine: Engine


def check_same(card: Card, other: Card, path: Path) -> None:
    """Refuse to compare what are not forms of one network: all are fed and judged by one card.

    Convolutions may be exchanged for separable ones in one of them.

    Args:
        card: of the run.
        other: of the file at `path`.
        path: for the message.

    Raises:
        UserError: they differ in task, architecture, classes or preprocessing.
    """
    for part, name in COMPARED.items():
        if getattr(card, part) != getattr(other, part):
            raise UserError(
                f"{path}: its {name} differs from that of the run; `bench` compares forms of one "
                "network"
            )


class Row(NamedTuple):
    """What was measured of one form."""

    name: str
    engine: str
    precision: str
    file_bytes: int
    calls: int
    p50_ms: float
    """Of the time for one image, the median, and what one call in a hundred exceeds."""
    p99_ms: float
    images_per_second: float
    """In batches."""
    memory_bytes: int
    """The most that a process needs above what its libraries need."""
    score: float | None


def measure(
    subjects: Sequence[Subject],
    image: Float[Tensor, "1 c h w"],
    *,
    batch_size: int,
    seconds: float,
    material: Material | None = None,
) -> list[Row]:
    """Ask all in turn for about so many seconds in all.

    Args:
        subjects: what to measure.
        image: normalised, of the size that is wanted.
        batch_size: images of a batch.
        seconds: for times; accuracy takes what it takes.
        material: to measure accuracy by; none without it.
    """
    batch = image.repeat(batch_size, 1, 1, 1)
    single, batched = timed(subjects, image, batch, seconds)
    rows = []
    for subject, one, many in zip(subjects, single, batched, strict=True):
        rows.append(
            Row(
                subject.name,
                subject.engine.name,
                subject.engine.precision,
                file_bytes(subject.path),
                len(one),
                float(np.percentile(one, 50)) * 1e3,
                float(np.percentile(one, 99)) * 1e3,
                batch_size / float(np.median(many)),
                memory(subject.path, tuple(image.shape[1:]), batch_size),
                None if material is None else material.score(subject.engine),
            )
        )
    return rows


def timed(
    subjects: Sequence[Subject],
    image: Float[Tensor, "1 c h w"],
    batch: Float[Tensor, "b c h w"],
    seconds: float,
) -> tuple[list[list[float]], list[list[float]]]:
    """Seconds of each call, of one image and of a batch, for each subject."""
    for subject in subjects:
        for _ in range(WARM_UP):
            subject.engine(image)
        subject.engine(batch)
    single: list[list[float]] = [[] for _ in subjects]
    batched: list[list[float]] = [[] for _ in subjects]
    end = time.perf_counter() + seconds
    turn = 0
    while turn < LEAST_CALLS or time.perf_counter() < end:
        # Who goes first changes, so that nobody always follows the same one.
        order = [(turn + i) % len(subjects) for i in range(len(subjects))]
        for place in order:
            single[place].append(_seconds(subjects[place].engine, image))
        if turn % LEAST_CALLS == 0:
            for place in order:
                batched[place].append(_seconds(subjects[place].engine, batch))
        turn += 1
    return single, batched


def _seconds(engine: Engine, x: Tensor) -> float:
    start = time.perf_counter()
    engine(x)
    return time.perf_counter() - start


def file_bytes(path: Path) -> int:
    """Of a file, and of OpenVINO's weights beside it."""
    weights = path.with_suffix(".bin")
    beside = weights.stat().st_size if path.suffix == ".xml" and weights.exists() else 0
    return path.stat().st_size + beside


def memory(path: Path, image: tuple[int, ...], batch_size: int) -> int:
    """Bytes that a fresh process needs at most to open a file and to ask it, one and many images.

    Raises:
        UserError: the process died.
    """
    context = multiprocessing.get_context("spawn")  # a fork would begin with our memory
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_remember, args=(there, path, image, batch_size))
    process.start()
    there.close()
    try:
        return here.recv()
    except EOFError as error:
        raise UserError(f"{path}: the process that measured its memory died") from error
    finally:
        process.join()
        here.close()


def _remember(answer: Connection, path: Path, image: tuple[int, ...], batch_size: int) -> None:
    kind = kind_of(path)
    if kind == "onnxruntime":
        extras.onnxruntime()
    elif kind == "openvino":
        extras.openvino()
    before = _peak_bytes()
    engine = open_engine(path)
    for number in (1, batch_size):
        engine(torch.zeros(number, *image))
    answer.send(_peak_bytes() - before)
    answer.close()


def _peak_bytes() -> int:
    """The most memory that this process ever had."""
    status = Path("/proc/self/status")
    if status.exists():  # the other counter would begin with that of the process that started it
        lines = status.read_text().splitlines()
        (peak,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(peak) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS counts in bytes


def told(row: Row) -> dict[str, Any]:
    """For JSON."""
    return row._asdict()
