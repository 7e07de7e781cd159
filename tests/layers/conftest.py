import jaxtyping
import pytest


@pytest.fixture
def unchecked_types(monkeypatch):
    """As in production, where no type is checked at run time and the code's own checks must do."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
