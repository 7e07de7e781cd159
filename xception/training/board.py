"""TensorBoard, an extra: the figures of each epoch beside what is printed."""

from pathlib import Path
from typing import Any

from xception.errors import UserError
from xception.training.progress import Progress, Step


class Board:
    """Passes everything on to another progress and writes the figures to `FOLDER/tensorboard`.

    Raises:
        UserError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, inner: Progress):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError:
            raise UserError(
                "TensorBoard is not installed: pip install 'xception[tensorboard]'"
            ) from None
        self.inner = inner
        self.writer = SummaryWriter(str(folder / "tensorboard"))

    def note(self, text: str) -> None:
        """Passed on."""
        self.inner.note(text)

    def step(self, step: int, row: Step) -> None:
        """Passed on."""
        self.inner.step(step, row)

    def epoch(self, row: dict[str, Any]) -> None:
        """Every figure of the epoch as a scalar over the steps."""
        self.inner.epoch(row)
        for name, value in row.items():
            if isinstance(value, float):
                self.writer.add_scalar(name, value, row["step"])
        self.writer.flush()
