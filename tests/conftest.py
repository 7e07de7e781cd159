"""Settings of the test process; they must stand before torch, Keras and matplotlib are imported."""

import gc
import os

os.environ["KERAS_BACKEND"] = "torch"
os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch
from hypothesis import settings
from typechecker import check_types_of

check_types_of("xception")
torch.set_num_threads(1)  # tests run side by side
settings.register_profile("seeded", derandomize=True, deadline=None, database=None)
settings.load_profile("seeded")


def pytest_collection_finish() -> None:
    """What all tests have in common stays; else each full collection looks through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def unmeasured_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the test starts run at their own speed: what they run, other tests cover."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
