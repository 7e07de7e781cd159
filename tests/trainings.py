"""Trainings in processes of their own, forked from one that has imported all that they need.

Torch alone takes seconds to import, so a process that begins with Python would mostly do that. The
process they are forked from has nothing of this one: there no types are checked.
"""

import json
import multiprocessing
import os
import socket
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from xception.training.config import TrainConfig
from xception.training.run import train

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["xception.training.run"])


def start(photos: Path, config: TrainConfig, folder: Path) -> BaseProcess:
    """A training, or the continuation of the one whose folder it is."""
    process = CONTEXT.Process(target=_train, args=(photos, config, folder))
    process.start()
    return process


def _train(photos: Path, config: TrainConfig, folder: Path) -> None:
    torch.set_num_threads(1)
    train(photos, config, folder, resume=folder.exists())


def train_together(count: int, photos: Path, config: TrainConfig, folder: Path) -> list[Any]:
    """History and metrics of one training by several processes, which know of each other what
    torchrun would tell them."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    answer = folder.parent / f"answer of {folder.name}.json"
    world = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [
        CONTEXT.Process(
            target=_train_one_of,
            daemon=True,  # or one that waits for ever would outlive the tests
            args=({**world, "RANK": str(i), "LOCAL_RANK": str(i)}, photos, config, folder, answer),
        )
        for i in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * count
    return json.loads(answer.read_text())


def _train_one_of(
    environment: dict[str, str], photos: Path, config: TrainConfig, folder: Path, answer: Path
) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    result = train(photos, config, folder)
    if result.leads:
        answer.write_text(json.dumps([result.history, result.metrics]))
