"""Keras is an oracle here: it must be there, and compute with torch."""

import os

import jaxtyping
import pytest

os.environ["KERAS_BACKEND"] = "torch"


@pytest.fixture
def unchecked_types(monkeypatch):
    """As in production, where no type is checked at run time and the code's own checks must do."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
