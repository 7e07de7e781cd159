from collections.abc import Iterable

import pytest

from xception.data.known_sets import CAMVID_11, CITYSCAPES_IDS, CITYSCAPES_TRAIN_IDS, VOC
from xception.data.pair_layout import Found, Layout, find_pairs
from xception.errors import UserError

LISTS = "VOC2012/ImageSets/Segmentation"


def find(
    names: Iterable[str], lists: dict[str, bytes] | None = None, layout: Layout | None = None
) -> Found:
    lists = lists or {}
    found = find_pairs(sorted([*names, *lists]), lists.__getitem__, layout)
    assert found is not None
    return found


def rows(found: Found) -> set[tuple[str, str, str | None]]:
    return set(found.rows)


def nothing(name: str) -> bytes:
    raise AssertionError(f"no need to read {name}")


@pytest.mark.parametrize("images", ["images", "Image", "imgs", "photos"])
@pytest.mark.parametrize("masks", ["masks", "labels", "annotations", "Annotation", "gt"])
def test_folders_side_by_side(images: str, masks: str) -> None:
    found = find([f"{images}/a.jpg", f"{images}/b.JPG", f"{masks}/a.png", f"{masks}/b.png"])
    assert rows(found) == {
        (f"{images}/a.jpg", f"{masks}/a.png", None),
        (f"{images}/b.JPG", f"{masks}/b.png", None),
    }
    assert (found.layout, found.unpaired, found.notes, found.known) == ("folders", (), (), None)
    assert found.said == f"photos in {images}, masks in {masks}"


@pytest.mark.parametrize(
    ("photo", "mask"),
    [
        ("{}/images/a.jpg", "{}/masks/a.png"),
        ("images/{}/a.jpg", "masks/{}/a.png"),
        ("set/images/{}/deep/a.jpg", "set/annotations/{}/deep/a.png"),
        ("set/{}/a.jpg", "set/{}annot/a.png"),
        ("set/{}/a.jpg", "set/{}_labels/a_L.png"),
        ("{}_images/a.jpg", "{}_masks/a_mask.png"),
        ("images_{}/a.jpg", "masks-{}/a-mask.png"),
        ("{}/images/a.jpg", "{}/masks/a.jpg.png"),
        ("{}/images/a b é.jpg", "{}/masks/a b é.png"),
    ],
)
@pytest.mark.parametrize("names", [("train", "val", "test"), ("training", "validation", "testing")])
def test_splits_above_below_and_within(photo: str, mask: str, names: tuple[str, ...]) -> None:
    files = [pattern.format(name) for name in names for pattern in (photo, mask)]
    splits = ("train", "validation", "test")
    assert rows(find(files)) == {
        (photo.format(name), mask.format(name), split)
        for name, split in zip(names, splits, strict=True)
    }


def test_no_pairs() -> None:
    for names in (
        [],
        ["dress/1.jpg", "hat/1.jpg"],
        ["images/a.jpg", "masks/b.png"],
        ["images/a.jpg", "labels/a.txt"],  # boxes
        ["train/images/1.jpg", "val/masks/1.png"],
        ["images/.hidden.png", "masks/.hidden.png"],
    ):
        assert find_pairs(names, nothing) is None


def test_the_mask_of_the_same_name_goes_before_one_with_an_ending() -> None:
    found = find(["images/a.jpg", "masks/a.png", "masks/a_L.png"])
    assert rows(found) == {("images/a.jpg", "masks/a.png", None)}
    assert found.unpaired == ("masks/a_L.png",)


def test_one_mask_is_not_that_of_two_photos() -> None:
    found = find(["images/3.jpg", "images/3_L.jpg", "masks/3_L.png"])
    assert rows(found) == {("images/3_L.jpg", "masks/3_L.png", None)}
    assert found.unpaired == ("images/3.jpg",)


def test_partners_that_are_not_there() -> None:
    found = find(["images/a.jpg", "images/b.jpg", "masks/a.png", "masks/c.png", "readme.txt"])
    assert rows(found) == {("images/a.jpg", "masks/a.png", None)}
    assert set(found.unpaired) == {"images/b.jpg", "masks/c.png"}


@pytest.mark.parametrize(
    "names",
    [
        ["images/a.jpg", "images/a.png", "masks/a.png"],
        ["images/a.jpg", "masks/a.png", "masks/a.bmp"],
        ["images/a.jpg", "masks/a_L.png", "masks/a_mask.png"],
        ["train/images/a.jpg", "images/train/a.jpg", "images/b.jpg", "masks/train/a.png"],
    ],
)
def test_two_of_one_name_are_refused(names: list[str]) -> None:
    with pytest.raises(UserError, match="keep one photo and one mask of a name"):
        find(names)


@pytest.mark.parametrize(
    ("photo", "mask"),
    [
        ("images/IMG_1.JPG", "masks/img_1.png"),
        ("images/IMG_1.JPG", "masks/img_1_Mask.PNG"),
        ("images/fe\u0301e.jpg", "masks/f\xe9e.png"),  # é in two signs and in one
        ("images/f\xe9e.jpg", "masks/fe\u0301e_gt.png"),
        ("images/e\u0301te\u0301/1.jpg", "masks/\xe9t\xe9/1.png"),
    ],
)
def test_one_name_may_be_written_in_several_ways(photo: str, mask: str) -> None:
    assert rows(find([photo, mask])) == {(photo, mask, None)}


def test_names_that_differ_in_nothing_but_case_are_two_of_one_name() -> None:
    with pytest.raises(UserError, match="keep one photo and one mask of a name"):
        find(["images/a.jpg", "images/A.jpg", "masks/a.png", "masks/A.png"])


def test_two_photos_of_one_name_do_not_matter_without_a_mask() -> None:
    assert len(find(["images/a.jpg", "images/a.png", "images/b.png", "masks/b.png"]).rows) == 1


def test_some_in_splits_and_some_in_none_are_refused() -> None:
    names = ["images/train/a.jpg", "masks/train/a.png", "images/b.jpg", "masks/b.png"]
    with pytest.raises(UserError, match=r"^images/b\.jpg is in no split"):
        find(names)


def test_a_split_without_any_mask_is_left_out_and_said() -> None:
    found = find(["train/images/a.jpg", "train/masks/a.png", "test/images/b.jpg"])
    assert rows(found) == {("train/images/a.jpg", "train/masks/a.png", "train")}
    assert found.unpaired == ()
    assert found.notes == ("1 test photos are left out: none of them has a mask",)


def test_camvid_is_known_by_its_films() -> None:
    names = ["camvid/{}/images/0001TP_008550.jpg", "camvid/{}/masks/0001TP_008550.png"]
    found = find(name.format(split) for split in ("train", "val", "test") for name in names)
    assert (found.layout, found.said, found.known) == ("camvid", "CamVid", CAMVID_11)
    assert {split for *_, split in rows(found)} == {"train", "validation", "test"}
    others = ["images/me.jpg", "masks/me.png"]
    assert find(others).known is None
    assert find(others, layout="camvid").known == CAMVID_11
    assert find(["images/0001TP_1.jpg", "masks/0001TP_1.png"], layout="folders").known is None


def voc_names(*stems: str, masks: str = "SegmentationClass") -> list[str]:
    return [
        name
        for stem in stems
        for name in (f"VOC2012/JPEGImages/{stem}.jpg", f"VOC2012/{masks}/{stem}.png")
    ]


def voc_row(stem: str, split: str | None, masks: str = "SegmentationClass") -> tuple[object, ...]:
    return f"VOC2012/JPEGImages/{stem}.jpg", f"VOC2012/{masks}/{stem}.png", split


def test_pascal_voc_by_its_lists() -> None:
    names = [*voc_names("2007_000032", "2007_000033", "2007_000034"),
             "VOC2012/JPEGImages/2007_000035.jpg", "VOC2012/JPEGImages/2007_000036.jpg",
             "VOC2012/SegmentationObject/2007_000032.png"]  # fmt: skip
    lists = {
        f"{LISTS}/train.txt": b"2007_000032\n2007_000099\n",
        f"{LISTS}/val.txt": b"\xef\xbb\xbf2007_000033\r\n",
        f"{LISTS}/trainval.txt": b"2007_000032\n2007_000033\n",
        f"{LISTS}/test.txt": b"2007_000035\n",
    }
    found = find(names, lists)
    assert rows(found) == {voc_row("2007_000032", "train"), voc_row("2007_000033", "validation")}
    assert (found.layout, found.known) == ("voc", VOC)
    assert found.unpaired == ("VOC2012/JPEGImages/2007_000099.jpg",)  # 36 is in no list
    assert set(found.lists) == {f"{LISTS}/{name}.txt" for name in ("train", "val", "test")}
    assert found.notes == (
        "splits by test.txt, train.txt, val.txt",
        "1 test photos are left out: none of them has a mask",
    )


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "{}.jpg",
        "JPEGImages/{}.jpg",
        "/JPEGImages/{}.jpg /SegmentationClassAug/{}.png",
        "{}  1",
    ],
)
@pytest.mark.parametrize("stem", ["2007_{:06}", "cat.{}"])
def test_lists_may_name_photos_in_several_ways(line: str, stem: str) -> None:
    stems = [stem.format(i) for i in range(3)]
    listed = [line.format(name, name) for name in stems] + [line.format("gone", "gone")]
    lists = {"train": listed[:2], "val": listed[2:]}
    found = find(
        voc_names(*stems),
        {f"{LISTS}/{name}.txt": "\n".join(lines).encode() for name, lines in lists.items()},
    )
    assert rows(found) == {
        voc_row(stems[0], "train"), voc_row(stems[1], "train"), voc_row(stems[2], "validation"),
    }  # fmt: skip


def test_names_in_lists_may_hold_blanks() -> None:
    found = find(voc_names("cat 1", "cat 2"), {f"{LISTS}/train.txt": b"cat 1\ncat 2.jpg\n"})
    assert rows(found) == {voc_row("cat 1", "train"), voc_row("cat 2", "train")}


def test_pascal_voc_augmented() -> None:
    names = [*voc_names("2007_000032", "2007_000033"),
             *voc_names("2007_000032", "2007_000034", masks="SegmentationClassAug")]  # fmt: skip
    lists = {
        f"{LISTS}/train.txt": b"2007_000032\n",
        f"{LISTS}/trainaug.txt": b"2007_000032\n2007_000034\n",
        f"{LISTS}/val.txt": b"2007_000033\n",
    }
    assert rows(find(names, lists)) == {
        voc_row("2007_000032", "train", "SegmentationClassAug"),
        voc_row("2007_000034", "train", "SegmentationClassAug"),
        voc_row("2007_000033", "validation"),
    }


def test_a_set_of_ones_own_like_pascal_voc() -> None:
    # As labelme writes it: no lists, masks in another folder, arrays beside.
    names = voc_names("cat 1", "cat 2", masks="SegmentationClassPNG")
    found = find([*names, "VOC2012/SegmentationClass/cat 1.npy", "VOC2012/class_names.txt"])
    assert rows(found) == {
        voc_row("cat 1", None, "SegmentationClassPNG"),
        voc_row("cat 2", None, "SegmentationClassPNG"),
    }
    assert found.known is None
    assert find(names, layout="voc").known == VOC
    # As CVAT writes it: a list that says nothing of splits.
    found = find(voc_names("cat 1"), {f"{LISTS}/default.txt": b"cat 1\n"})
    assert rows(found) == {voc_row("cat 1", None)}


def test_pascal_voc_with_training_and_validation_in_one_list() -> None:
    found = find(voc_names("2007_000032"), {f"{LISTS}/trainval.txt": b"2007_000032\n"})
    assert rows(found) == {voc_row("2007_000032", "train")}


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"train": b"a\n", "val": b"a\n"}, "a stands in the train list too"),
        ({"train": b"\xff\xfe"}, "is not UTF-8"),
        (
            {"train": b"b 1\nc\n", "val": b"d\n"},
            r"train\.txt: b 1 is no photo in JPEGImages, .*; right would be a$",
        ),
    ],
)
def test_lists_that_are_wrong(lists: dict[str, bytes], message: str) -> None:
    with pytest.raises(UserError, match=message):
        find(voc_names("a"), {f"{LISTS}/{name}.txt": data for name, data in lists.items()})


def test_two_sets_of_pascal_voc_are_refused() -> None:
    names = voc_names("a")
    with pytest.raises(UserError, match=r"several sets like Pascal VOC \(VOC2007/, VOC2012/\)"):
        find([*names, *(name.replace("2012", "2007") for name in names)])


def city(split: str, stem: str, *kinds: str) -> list[str]:
    town = stem.split("_")[0]
    names = [f"leftImg8bit/{split}/{town}/{stem}_leftImg8bit.png"]
    return names + [f"gtFine/{split}/{town}/{stem}_gtFine_{kind}.png" for kind in kinds]


def test_cityscapes_label_ids() -> None:
    kinds = ("labelIds", "instanceIds", "color")
    shots = {"train": "aachen_000000_000019", "val": "ulm_000000_000019"}
    names = [name for split, stem in shots.items() for name in city(split, stem, *kinds)]
    names += city("test", "bonn_000000_000019", *kinds)
    names += city("train_extra", "jena_000000_000019")
    names += city("train", "bremen_000000_000019")
    found = find(names)
    assert rows(found) == {
        (*city("train", shots["train"], "labelIds"), "train"),
        (*city("val", shots["val"], "labelIds"), "validation"),
    }
    assert (found.layout, found.known) == ("cityscapes", CITYSCAPES_IDS)
    assert found.unpaired == tuple(city("train", "bremen_000000_000019"))
    assert found.notes == ("1 test photos are left out: their published masks are blank",)


def test_cityscapes_train_ids_where_all_have_them() -> None:
    both = ("labelIds", "labelTrainIds")
    names = city("train", "aachen_1_2", *both) + city("val", "ulm_1_2", *both)
    found = find([f"cities/{name}" for name in names])
    assert found.known == CITYSCAPES_TRAIN_IDS
    assert all("labelTrainIds" in row.mask for row in found.rows)
    found = find([*city("train", "aachen_1_2", *both), *city("val", "ulm_1_2", "labelIds")])
    assert found.known == CITYSCAPES_IDS
    assert not any("labelTrainIds" in row.mask for row in found.rows)


@pytest.mark.parametrize("layout", ["voc", "cityscapes"])
def test_another_layout_than_asked_for_is_none(layout: Layout) -> None:
    assert find_pairs(["images/a.jpg", "masks/a.png"], nothing, layout) is None
