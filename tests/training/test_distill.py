import copy
from pathlib import Path

import torch
from torch import nn

from xception.data.folders import open_photos
from xception.data.preprocess import Preprocess
from xception.data.transforms import Augment
from xception.models.zoo import create_model
from xception.training.distill import TaughtFeed, distill, distillation_config
from xception.training.distributed import World
from xception.training.interrupts import StopRequest
from xception.training.progress import Silent


class Numbers:
    """A feed of two steps."""

    steps_per_epoch = 2

    def training(self, first_step: int, last_step: int):
        for step in range(first_step, last_step):
            yield torch.full((3, 4), float(step)), torch.eye(5)[:3]

    def validation(self, module: nn.Module):
        return "judged"


class Teacher(nn.Module):
    """Answers 0 … 4 times the mean of what it sees, and remembers its mode."""

    def __init__(self):
        super().__init__()
        self.modes: list[bool] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.modes.append(self.training)
        return x.mean(1, keepdim=True) * torch.arange(5.0)


def test_targets_are_the_teachers_answers_and_a_little_truth():
    teacher = Teacher().train()
    feed = TaughtFeed(Numbers(), teacher, 0.75, False)  # pyright: ignore[reportArgumentType]
    assert feed.steps_per_epoch == 2
    (first, even), (second, uneven) = feed.training(0, 2)
    assert torch.equal(first, torch.zeros(3, 4))
    torch.testing.assert_close(even, 0.75 * torch.full((3, 5), 0.2) + 0.25 * torch.eye(5)[:3])
    powers = torch.tensor([1, 2.718281828, 7.389056099, 20.08553692, 54.59815003])
    torch.testing.assert_close(uneven, 0.75 * powers / powers.sum() + 0.25 * torch.eye(5)[:3])
    assert torch.equal(second, torch.ones(3, 4))
    assert teacher.modes == [False, False]
    assert teacher.training
    assert not uneven.requires_grad


def test_of_several_labels_each_is_taught_on_its_own():
    feed = TaughtFeed(Numbers(), Teacher(), 1.0, True)  # pyright: ignore[reportArgumentType]
    ((_, targets),) = feed.training(0, 1)
    torch.testing.assert_close(targets, torch.full((3, 5), 0.5))


def test_a_damaged_network_learns_again_from_the_original(photos: Path, tmp_path: Path):
    """Three colours: with its last layer gone, the student answers as the teacher after a while."""
    torch.manual_seed(0)
    options = {"num_classes": 3, "width": 0.01, "middle": 0, "stem_stride": 1}
    teacher = create_model("xception", **options).eval()
    student = copy.deepcopy(teacher)
    student.reset_head(3)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    config = distillation_config(
        Preprocess(size=16), epochs=2, batch_size=14, learning_rate=0.05, augment=Augment(),
        workers=0, device="cpu",
    )  # fmt: skip
    rows = distill(
        student, teacher, open_photos(photos), config, tmp_path, World(), StopRequest(), Silent()
    )
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert (tmp_path / "metrics.csv").exists()
    assert not (tmp_path / "last.ckpt").exists()
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    changed = [n for n, v in student.state_dict().items() if not torch.equal(v, before[n])]
    assert "stem.3.weight" in changed


def test_the_rate_follows_the_batch():
    def rate(batch_size: int) -> float:
        config = distillation_config(Preprocess(size=16), epochs=1, batch_size=batch_size)
        return config.optimizer.learning_rate

    assert rate(128) == rate(512) == 0.01
    assert rate(32) == 0.005
