"""Settings of the test process; they must stand before torch, Keras and matplotlib are imported."""

import contextlib
import gc
import importlib
import os

import coverage

os.environ["KERAS_BACKEND"] = "torch"
os.environ["MPLBACKEND"] = "Agg"

if "PYTEST_XDIST_WORKER" in os.environ:
    # pytest-cov begins to count lines twice here: now, which nobody asks for, and before the tests
    # are collected. The first would go on wherever the second pauses, and an import takes twice as
    # long while it is counted.
    while (counting := coverage.Coverage.current()) is not None:
        counting.stop()
    for large in ("keras", "fastapi"):
        with contextlib.suppress(ImportError):
            importlib.import_module(large)

import pytest
import torch
from hypothesis import settings
from typechecker import check_types_of

check_types_of("xception")
torch.set_num_threads(1)  # tests run side by side
settings.register_profile("seeded", derandomize=True, deadline=None, database=None)
settings.load_profile("seeded")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Workers count lines because pytest-cov tells them to, not because they are processes that
    something measured has started."""
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


def pytest_collection_finish() -> None:
    """What all tests have in common stays; else each full collection looks through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def unmeasured_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that the test starts run at their own speed: what they run, other tests cover."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
