import pickle

import numpy as np
import pytest
from mask_files import mask

from xception.data.class_file import ClassSpec, read_classes
from xception.data.known_sets import (
    CAMVID_11,
    CITYSCAPES_IDS,
    CITYSCAPES_TRAIN_IDS,
    VOC,
    is_camvid,
    is_voc,
)
from xception.data.legend import (
    Legend,
    completed,
    default_colours,
    legend_found,
    legend_of,
    sight_of,
)
from xception.data.masks import RawMask, UnknownValues, decode_mask
from xception.errors import UserError


def raw(values: object, palette: list[int] | None = None) -> RawMask:
    return decode_mask(mask(values, palette), "m")


def read(legend: Legend, values: object, palette: list[int] | None = None) -> list[list[int]]:
    return legend.read(raw(values, palette), "m").tolist()


def legend(text: str) -> Legend:
    return legend_of(read_classes(text.encode(), "classes.txt"))


def found(*masks: RawMask) -> Legend:
    return legend_found([sight_of(one) for one in masks])


def test_numbers_become_class_numbers() -> None:
    two = legend("7: road\n3: void\n11: sky\n")
    assert two.classes == ("road", "sky")
    assert read(two, [[7, 11, 3, 255]]) == [[0, 1, 255, 255]]


def test_an_unknown_number_is_an_error_with_its_count() -> None:
    with pytest.raises(UnknownValues) as caught:
        read(legend("a\nb"), [[0, 1, 2, 2], [9, 0, 0, 255]])
    assert caught.value.counts == {"2": 2, "9": 1}
    assert str(caught.value) == "m: unknown mask values: 2 (2 pixels), 9 (1 pixels)"


def test_255_may_be_given_a_name() -> None:
    two = legend("0: background\n255: house\n")
    assert read(two, [[0, 255]]) == [[0, 1]]


def test_colours_become_class_numbers() -> None:
    two = legend("road 128 64 128\nsky 0 0 255\nvoid 0 0 0\n")
    colours = [[[0, 0, 255], [128, 64, 128], [0, 0, 0]]]
    assert two.colours == ((128, 64, 128), (0, 0, 255))
    assert read(two, colours) == [[1, 0, 255]]
    # The same by a palette in whatever order, and by the numbers of the lines.
    assert read(two, [[0, 1, 2]], [0, 0, 255, 128, 64, 128, 0, 0, 0]) == [[1, 0, 255]]
    assert read(two, [[0, 1, 2]]) == [[0, 1, 255]]


def test_unknown_colours_are_an_error() -> None:
    two = legend("road 128 64 128\nsky 0 0 255\n")
    with pytest.raises(UnknownValues) as caught:
        read(two, [[[1, 2, 3], [128, 64, 128], [1, 2, 3]]])
    assert caught.value.counts == {"#010203": 2}
    with pytest.raises(UnknownValues) as caught:
        read(two, [[0, 1, 1]], [0, 0, 255, 9, 9, 9])
    assert caught.value.counts == {"#090909": 2}


def test_the_last_entry_of_a_palette_does_not_count_unless_it_has_a_class() -> None:
    palette = [0, 0, 255] + 254 * [1, 1, 1] + [224, 224, 192]
    two = legend("road 128 64 128\nsky 0 0 255\n")
    assert read(two, [[0, 255]], palette) == [[1, 255]]
    three = legend("road 128 64 128\nsky 0 0 255\nedge 224 224 192\n")
    assert read(three, [[0, 255]], palette) == [[1, 2]]


def test_the_last_entry_of_a_palette_may_be_a_class_of_its_own_colour() -> None:
    two = legend("land 0 0 0\nhouse 255 255 255\n")
    greys = [part for value in range(256) for part in 3 * [value]]
    assert read(two, [[0, 255]], greys) == [[0, 1]]
    assert read(two, [[0, 255]], 3 * [0] + 3 * [255]) == [[0, 255]]  # black where there is nothing


@pytest.mark.parametrize("value", ["", "{}: "])
def test_what_fills_a_palette_up_is_no_class(value: str) -> None:
    lines = ["ground 0 0 0", "road 200 0 0", "tree 0 200 0"]
    three = legend("\n".join(value.format(i) + line for i, line in enumerate(lines)))
    palette = [0, 0, 0, 200, 0, 0, 0, 200, 0]  # and black from 3 on
    assert read(three, [[0, 1, 2, 255]], palette) == [[0, 1, 2, 255]]
    with pytest.raises(UnknownValues) as caught:
        read(three, [[0, 7, 7, 254]], palette)
    assert caught.value.counts == {
        "7 with the colour of 0": 2,
        "254 with the colour of 0": 1,
    }
    # In another order black stands at 3 first, which is the one that counts.
    assert read(three, [[0, 1, 3]], [200, 0, 0, 0, 200, 0, 1, 1, 1]) == [[1, 2, 0]]


def test_an_entry_of_a_repeated_colour_counts_where_the_list_gives_its_number_so() -> None:
    two = legend("0: road 200 0 0\n7: ground 0 0 0\n")
    assert read(two, [[0, 1, 7]], [200, 0, 0]) == [[0, 1, 1]]
    with pytest.raises(UnknownValues, match="8 with the colour of 1"):
        read(two, [[0, 8]], [200, 0, 0])
    last = legend("0: road 200 0 0\n255: ground 0 0 0\n")
    assert read(last, [[0, 255]], [200, 0, 0]) == [[0, 1]]


def test_entries_of_one_unknown_colour_are_counted_together() -> None:
    with pytest.raises(UnknownValues) as caught:
        read(legend("a 0 0 0\nb 1 1 1\n"), [[0, 1, 2]], [0, 0, 0, 9, 9, 9, 9, 9, 9])
    assert caught.value.counts == {"#090909": 2}


def test_numbers_written_as_grey_are_read_by_number_where_colours_mean_nothing() -> None:
    two = legend("road\nsky\n")
    assert read(two, [[[1, 1, 1], [0, 0, 0]]]) == [[1, 0]]
    with pytest.raises(UnknownValues, match="#ff0000"):
        read(two, [[[255, 0, 0], [0, 0, 0]]])
    coloured = legend("road 0 0 0\nsky 1 1 1\n")
    assert read(coloured, [[[1, 1, 1], [0, 0, 0]]]) == [[1, 0]]


def test_many_colours_are_looked_up_as_in_a_plain_loop() -> None:
    rng = np.random.default_rng(0)
    colours = np.unique(rng.integers(0, 256, (200, 3)).astype(np.uint8), axis=0)
    specs = [ClassSpec(f"c{i}", i, (int(r), int(g), int(b))) for i, (r, g, b) in enumerate(colours)]
    picked = rng.integers(0, len(colours), (30, 40))
    assert read(legend_of(specs), colours[picked]) == picked.tolist()


def test_blocks_of_colours_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xception.data.legend._BLOCK", 7)
    two = legend("road 128 64 128\nsky 0 0 255\n")
    colours = np.zeros((5, 5, 3), np.uint8)
    colours[:] = [128, 64, 128]
    colours[3, 4] = colours[0, 0] = [0, 0, 255]
    expected = np.zeros((5, 5), int)
    expected[3, 4] = expected[0, 0] = 1
    assert read(two, colours) == expected.tolist()
    colours[1, 1] = colours[4, 4] = [1, 1, 1]
    with pytest.raises(UnknownValues) as caught:
        read(two, colours)
    assert caught.value.counts == {"#010101": 2}


def test_like_another_numbering() -> None:
    two = legend("road 1 2 3\nsky 4 5 6\n").like(["tree", "sky", "road"])
    assert two.classes == ("tree", "sky", "road")
    assert two.colours[1:] == ((4, 5, 6), (1, 2, 3))
    assert len(set(two.colours)) == 3
    assert read(two, [[0, 1, 255]]) == [[2, 1, 255]]
    assert read(two, [[[4, 5, 6], [1, 2, 3]]]) == [[1, 2]]
    with pytest.raises(
        UserError, match=r"classes road, of which the model knows nothing; it knows"
    ):
        legend("road\nsky\n").like(["sky", "sea"])


def test_ignoring_more_values() -> None:
    three = legend("a\nb\nc\n")
    assert three.ignoring([]) is three
    two = three.ignoring([1])
    assert two.classes == ("a", "c")
    assert two.colours == (three.colours[0], three.colours[2])
    assert read(two, [[0, 1, 2, 255]]) == [[0, 255, 1, 255]]
    for wrong in (three.ignoring, found(raw([[[1, 2, 3], [4, 5, 6]]])).ignoring):
        with pytest.raises(UserError, match="only masks of numbers"):
            wrong([256])


def test_a_value_to_ignore_takes_the_colour_of_its_class_along() -> None:
    two = legend("ground 0 0 0\nroad 200 0 0\ntree 0 200 0\n").ignoring([1])
    assert two.classes == ("ground", "tree")
    assert two.colours == ((0, 0, 0), (0, 200, 0))
    expected = [[0, 255, 1]]
    assert read(two, [[0, 1, 2]]) == expected
    assert read(two, [[[0, 0, 0], [200, 0, 0], [0, 200, 0]]]) == expected
    assert read(two, [[0, 1, 2]], [0, 0, 0, 200, 0, 0, 0, 200, 0]) == expected


def test_a_value_without_a_class_can_be_ignored_in_a_palette() -> None:
    two = legend("ground 0 0 0\nroad 200 0 0\n").ignoring([2, 7])
    palette = [0, 0, 0, 200, 0, 0, 9, 9, 9]  # and black from 3 on
    assert read(two, [[0, 1, 2, 7]], palette) == [[0, 1, 255, 255]]
    with pytest.raises(UnknownValues, match="8 with the colour of 0"):
        read(two, [[0, 8]], palette)
    said = legend("0: ground 0 0 0\n1: road 200 0 0\n2: void\n7: ignored\n")  # as the error advises
    assert read(said, [[0, 1, 2, 7]], palette) == [[0, 1, 255, 255]]


def test_found_numbers() -> None:
    one = found(raw([[0, 5]]), raw([[5, 255, 17]]))
    assert one.classes == ("class 0", "class 5", "class 17")
    assert read(one, [[0, 5, 17, 255]]) == [[0, 1, 2, 255]]
    with pytest.raises(UnknownValues):
        read(one, [[1]])


def test_found_black_and_white() -> None:
    two = found(raw([[0, 255]]))
    assert two.classes == ("class 0", "class 255")
    assert read(two, [[0, 255]]) == [[0, 1]]
    grey = found(raw([[[255] * 3, [0] * 3]]))
    assert read(grey, [[[255] * 3, [0] * 3]]) == [[1, 0]]


def test_found_palette() -> None:
    palette = [0, 0, 0, 200, 0, 0, 0, 200, 0]
    two = found(raw([[0, 2]], palette), raw([[2, 2]], palette[:9]))
    assert two.classes == ("class 0", "class 2")
    assert two.colours == ((0, 0, 0), (0, 200, 0))


def test_palettes_that_disagree_are_read_by_colour() -> None:
    one = raw([[0, 1]], [0, 0, 0, 200, 0, 0])
    other = raw([[0, 1, 255]], [200, 0, 0, 0, 0, 0])
    both = found(one, other)
    assert both.classes == ("#000000", "#c80000")
    assert both.read(one, "m").tolist() == [[0, 1]]
    assert both.read(other, "m").tolist() == [[1, 0, 255]]


def test_found_colours() -> None:
    colours = [[[255, 0, 0], [0, 0, 0]], [[0, 255, 0], [255, 0, 0]]]
    three = found(raw(colours), raw([[0, 0]]))  # the second saved as grey: all black
    assert three.classes == ("#000000", "#00ff00", "#ff0000")
    assert three.colours == ((0, 0, 0), (0, 255, 0), (255, 0, 0))
    assert read(three, colours) == [[2, 0], [1, 2]]
    assert read(three, [[0, 0]]) == [[0, 0]]


def test_photos_and_smoothed_masks_are_no_classes() -> None:
    with pytest.raises(UserError, match="256 different numbers, as photos and smoothed masks"):
        found(raw(np.arange(256).reshape(16, 16)))
    smooth = np.random.default_rng(0).integers(0, 256, (10, 10, 3))
    with pytest.raises(UserError, match="more than 64 different colours"):
        found(raw(smooth))


def test_default_colours_are_those_of_pascal_voc() -> None:
    colours = default_colours(256)
    assert colours[:5] == ((0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128))
    assert colours[15] == (192, 128, 128)  # person
    assert colours[255] == (224, 224, 192)  # the border
    assert len(set(colours)) == 256


def test_completed_colours_all_differ() -> None:
    assert completed([None, (0, 0, 0), (0, 0, 0), (128, 0, 0)]) == (
        (0, 128, 0),
        (0, 0, 0),
        (128, 128, 0),
        (128, 0, 0),
    )


def test_legends_survive_pickling() -> None:
    two = legend("road 128 64 128\nsky 0 0 255\n")
    assert pickle.loads(pickle.dumps(two)) == two


@pytest.mark.parametrize("known", [VOC, CITYSCAPES_IDS, CITYSCAPES_TRAIN_IDS, CAMVID_11])
def test_known_sets(known) -> None:
    of = legend_of(known.specs, by_palette=False)
    assert len(set(of.classes)) == len(of.classes)
    assert len(set(of.colours)) == len(of.colours)
    assert read(of, [[255]]) == [[255]]


def test_pascal_voc_is_read_by_number_and_by_colour() -> None:
    voc = legend_of(VOC.specs, by_palette=False)
    assert len(voc.classes) == 21
    assert read(voc, [[0, 15, 20, 255]]) == [[0, 15, 20, 255]]
    assert read(voc, [[15, 3]], 768 * [9]) == [[15, 3]]
    assert read(voc, [[[192, 128, 128], [224, 224, 192]]]) == [[15, 255]]
    assert voc.classes[15] == "person"
    with pytest.raises(UnknownValues):
        read(voc, [[21]])


def test_cityscapes_ids() -> None:
    # label id: train id, by hand from the label definitions
    expected = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11,
                25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}  # fmt: skip
    ids = legend_of(CITYSCAPES_IDS.specs, by_palette=False)
    train_ids = legend_of(CITYSCAPES_TRAIN_IDS.specs, by_palette=False)
    assert ids.classes == train_ids.classes
    assert len(ids.classes) == 19
    assert read(ids, [list(range(34))]) == [[expected.get(i, 255) for i in range(34)]]
    assert read(train_ids, [list(range(19))]) == [list(range(19))]
    for unknown, of in ((34, ids), (19, train_ids)):
        with pytest.raises(UnknownValues):
            read(of, [[unknown]])


def test_camvid() -> None:
    camvid = legend_of(CAMVID_11.specs, by_palette=False)
    assert read(camvid, [list(range(12))]) == [[*range(11), 255]]
    assert read(camvid, [[[0, 0, 0], [128, 64, 128]]]) == [[255, 3]]  # black is its void
    assert camvid.classes[3] == "road"
    assert camvid.colours[3] == (128, 64, 128)


def test_names_of_known_sets() -> None:
    assert is_voc(["2007_000032", "2011_003271"])
    assert not is_voc(["2007_000032", "me"])
    for year in range(1990, 2030):
        assert is_voc([f"{year}_100001"]) == (2007 <= year <= 2012)
    assert is_camvid(["0001TP_006690", "0006R0_f00930", "0016E5_07959", "Seq05VD_f00000"])
    assert not is_camvid(["0001TP_006690", "0001TP_a"])
