"""The rows of `metrics.csv`."""

import csv
import io
from typing import Any


def to_csv(history: list[dict[str, Any]]) -> bytes:
    """The history as a CSV file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, history[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()
