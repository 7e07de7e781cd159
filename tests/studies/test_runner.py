import subprocess
import sys
from pathlib import Path

import pytest

from xception.studies.alone import passed, take, taken
from xception.studies.cells import cells
from xception.studies.claims import Better
from xception.studies.runner import Pace, _start
from xception.studies.study import Arm, Study

STUDY = Study("two", "", "", "", Better("a", than=("b",)), (Arm("a"), Arm("b")))


def test_before_an_epoch_is_done_nothing_is_known():
    pace = Pace(6, 100.0)
    assert pace.left_s(6, 12, 100.0) is None
    assert pace.left_s(6, 12, 5000.0) is None


def test_the_time_that_is_left_falls_from_one_epoch_to_the_next():
    pace = Pace(6, 100.0)  # six were done before
    assert pace.left_s(7, 11, 160.0) == pytest.approx(11 * 60)
    assert pace.left_s(7, 11, 190.0) == pytest.approx(11 * 60 - 30)
    assert pace.left_s(9, 9, 220.0) == pytest.approx(9 * 40)  # three in two minutes
    assert pace.left_s(9, 9, 1e6) == 0.0


def test_who_inherits_the_lock_of_a_cell_holds_it_alone(tmp_path: Path):
    assert not taken(tmp_path)
    lock = take(tmp_path)
    assert lock is not None
    assert taken(tmp_path)
    call = [sys.executable, "-c", "input()"]
    with subprocess.Popen(call, stdin=subprocess.PIPE, pass_fds=passed(lock)) as child:
        lock.close()
        assert taken(tmp_path)
        child.communicate(b"\n")
    assert not taken(tmp_path)


def test_a_training_that_has_not_come_to_its_own_lock_holds_its_cell(tmp_path: Path):
    """As when its study is killed while it loads torch: nothing is in the run folder yet."""
    (cell, *_) = cells(STUDY, "tiny", 1, tmp_path)
    lock = take(cell.folder)
    assert lock is not None
    loading = [sys.executable, "-c", "import time; time.sleep(60)"]
    one = _start(cell, lock, tmp_path / "photos.zip", 1, loading)
    try:
        lock.close()  # as a killed study does
        assert not cell.run.exists()
        assert taken(cell.folder)
    finally:
        one.process.kill()
        one.process.wait()
    assert not taken(cell.folder)
