from collections.abc import Callable

import pytest
import torch

from xception.cost.count import Cost, count
from xception.cost.papers import (
    MISPRINTED_IN_TABLE_1,
    MOBILENET_TABLE_1,
    ROWS,
    SINGLE,
    Row,
    agrees,
    body,
    here,
    space_to_batch_macs,
)
from xception.models.zoo import create_model


@pytest.fixture(scope="module")
def cost() -> Callable[[Row, int], Cost]:
    known: dict[tuple[str, int], Cost] = {}

    def counted(row: Row, size: int) -> Cost:
        key = (f"{row.model} {row.options}", size)
        if key not in known:
            with torch.device("meta"):
                known[key] = count(create_model(row.model, **row.options), size)
        return known[key]

    return counted


def name(row: Row) -> str:
    return f"{row.table}: {row.row}: {row.quantity}"


def is_large(row: Row) -> bool:
    """Whether to count it takes a second and more."""
    return len(row.sizes) > 1 or row.options.get("output_stride") == 8


SMALL = [row for row in ROWS if not is_large(row)]
LARGE = [row for row in ROWS if is_large(row)]


@pytest.mark.parametrize("row", SMALL, ids=name)
def test_the_printed_number_comes_out(row: Row, cost: Callable[[Row, int], Cost]):
    assert agrees(row, here(row, cost)) != row.note.startswith("misprint")


@pytest.mark.slow
@pytest.mark.parametrize("row", LARGE, ids=name)
def test_the_printed_number_comes_out_of_large_networks(row: Row, cost: Callable[[Row, int], Cost]):
    assert agrees(row, here(row, cost))


def test_every_row_of_the_issue_is_there():
    tables = {row.table for row in ROWS}
    assert tables == {
        "Xception, Table 3", "MobileNet, Table 2", "MobileNet, Table 4", "MobileNet, Table 6",
        "MobileNet, Table 7", "DeepLab V3+, Table 5",
    }  # fmt: skip
    # 10 different numbers of Multiply-Adds in 16 rows; the last 8 repeat those before them.
    assert len([row for row in ROWS if row.table.startswith("DeepLab")]) == 16
    assert len([row for row in ROWS if row.sizes == SINGLE]) == 6


def test_the_body_of_table_1(cost: Callable[[Row, int], Cost]):
    row = next(row for row in ROWS if row.model == "mobilenet_v1")
    layers = body(cost(row, 224), (3, 224, 224))
    assert len(layers) == len(MOBILENET_TABLE_1) == 28  # §3.2: "MobileNet has 28 layers"
    differing = [i for i, pair in enumerate(zip(layers, MOBILENET_TABLE_1, strict=True))
                 if pair[0] != pair[1]]  # fmt: skip
    assert differing == [MISPRINTED_IN_TABLE_1]
    assert layers[MISPRINTED_IN_TABLE_1][0] == "Conv dw / s1"
    assert layers[MISPRINTED_IN_TABLE_1][1:] == MOBILENET_TABLE_1[MISPRINTED_IN_TABLE_1][1:]


def test_the_misprint_of_table_2():
    # The printed shares of the MACs do not add up to 100 %; with 1.91 for 1.19 they do.
    printed = [float(row.printed) for row in ROWS if row.quantity.startswith("% of MACs")]
    assert sum(printed) == pytest.approx(99.29)
    assert sum(printed) - 1.19 + 1.91 == pytest.approx(100, abs=0.02)


def test_space_to_batch_by_hand():
    # 33 places at rate 6: 33 + 12 = 45, padded to 48, is 6 x 6 images of 8 x 8. A 3x3 window finds
    # 6 x 6 places in each of them: 36 x 36 in all, of which 33 x 33 are kept.
    conv = torch.nn.Conv2d(4, 5, 3, padding=6, dilation=6, bias=False)
    found = count(torch.nn.Sequential(conv, torch.nn.Conv2d(5, 2, 3)), 33, 4)
    plain = 9 * 5 * 2 * 31 * 31
    assert found.total["macs"] == 9 * 4 * 5 * 33 * 33 + plain
    assert space_to_batch_macs(found) == 9 * 4 * 5 * 36 * 36 + plain


def row(printed: str) -> Row:
    return Row("", "", "MACs", printed, 1, "", {}, ())


@pytest.mark.parametrize(
    ("printed", "counted", "so"),
    [
        ("569", 568.74, True),
        ("569", 567.0, False),
        ("4.2", 4.249, True),
        ("4.2", 4.26, False),
        ("54.17", 54.035, True),
        ("54.17", 53.9, False),
        ("1.19", 1.906, False),
        ("23,626,728", 23_626_728, True),
        ("0.02", 0.0205, True),
    ],
)
def test_agreement(printed: str, counted: float, so: bool):
    assert agrees(row(printed), counted) is so


def test_exact_counts_are_not_rounded(cost: Callable[[Row, int], Cost]):
    exact = {row.row: here(row, cost) for row in ROWS if row.table == "Xception, Table 3"}
    assert exact == {"Inception V3": 23_626_728, "Xception": 22_855_952}
