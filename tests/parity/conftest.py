import pytest


@pytest.fixture(autouse=True)
def unmeasured(no_cover: None) -> None:
    """Most of what runs here are other libraries, which take twice as long while each line is
    counted; what runs of ours, the tests of its room cover."""
