import os
import pickle
from pathlib import Path

import pytest
import torch

from xception.training.checkpoint import (
    CheckpointError,
    load_checkpoint,
    save_checkpoint,
)


def test_there_and_back(tmp_path):
    path = tmp_path / "last.ckpt"
    save_checkpoint(
        path, {"module": {"w": torch.arange(3.0)}, "position": {"step": 4, "best": (0.5, -1.0)}}
    )
    state = load_checkpoint(path)
    assert state["module"]["w"].tolist() == [0, 1, 2]
    assert state["position"] == {"step": 4, "best": (0.5, -1.0)}
    assert os.listdir(tmp_path) == ["last.ckpt"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    save_checkpoint(path, {"step": 1})
    opened = Path.open

    def on_full_disk(self: Path, mode: str = "r"):
        """Where the new one is written first, the disk is full."""
        part = self.name == ".last.ckpt.part"
        return opened(Path("/dev/full"), "wb") if part else opened(self, mode)

    monkeypatch.setattr(Path, "open", on_full_disk)
    with pytest.raises(CheckpointError, match=r"No space left.*untouched"):
        save_checkpoint(path, {"w": torch.zeros(100_000)})
    assert load_checkpoint(path)["step"] == 1
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_a_missing_one_is_said(tmp_path):
    with pytest.raises(CheckpointError, match="nothing to resume"):
        load_checkpoint(tmp_path / "last.ckpt")


class _Trap:
    def __reduce__(self):
        return (Path.touch, (Path("trap"),))


@pytest.mark.parametrize("kind", ["empty", "noise", "pickle", "torch", "cut", "format"])
def test_a_file_that_is_not_ours_is_refused_and_runs_nothing(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.ckpt"
    if kind == "cut":
        save_checkpoint(path, {"w": torch.zeros(1000)})
        path.write_bytes(path.read_bytes()[:700])
    elif kind == "torch":
        torch.save({"format": 1, "x": _Trap()}, path)
    elif kind == "format":
        torch.save({"format": 99}, path)
    else:
        content = {"empty": b"", "noise": bytes(range(256)), "pickle": pickle.dumps(_Trap())}
        path.write_bytes(content[kind])
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        load_checkpoint(path)
    assert not (tmp_path / "trap").exists()
