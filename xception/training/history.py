"""The rows of `metrics.csv`."""

import csv
import io
from typing import Any


def to_csv(history: list[dict[str, Any]]) -> bytes:
    """The history as a CSV file; what a row does not have stays empty."""
    text = io.StringIO()
    columns = dict.fromkeys(key for row in history for key in row)  # some only where validated
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()
