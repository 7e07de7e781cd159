import pytest

from xception.studies.runner import Pace


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
