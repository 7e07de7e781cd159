from xception.cli.reporting import each_epoch
from xception.evaluation.report import Epoch
from xception.evaluation.segmentation_report import PixelEpoch

HISTORY = [
    {"epoch": 1, "step": 10, "lr": 0.1, "train_loss": 2.0, "images_per_second": 5.0,
     "seconds": 20.0, "val_loss": 1.0, "val_miou": 0.25, "best": True},
    {"epoch": 2, "step": 20, "lr": 0.05, "train_loss": 1.5, "images_per_second": 5.0,
     "seconds": 35.5, "val_loss": 0.9, "val_miou": 0.5, "best": True},
]  # fmt: skip


def test_the_history_counts_from_the_start_and_a_report_from_the_epochs():
    rows = [PixelEpoch(**row) for row in each_epoch(HISTORY, PixelEpoch)]
    assert [row.seconds for row in rows] == [20.0, 15.5]
    assert [row.val_miou for row in rows] == [0.25, 0.5]
    assert [Epoch(**row).seconds for row in each_epoch(HISTORY, Epoch)] == [20.0, 15.5]
    assert list(each_epoch([], Epoch)) == []
