"""Public sets of photos with masks whose classes are known, recognised by the names of their files.

Pascal VOC: Everingham et al., the 2012 challenge's development kit. Cityscapes: Cordts et al., CVPR
2016, the label definitions of its own scripts. CamVid: Brostow et al., 2009, in the 11 classes of
SegNet (Badrinarayanan et al., 2017).
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

from xception.data.class_file import ClassSpec
from xception.data.legend import default_colours
from xception.data.masks import RGB

VOC_CLASSES = (
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_VOC_BORDER = (224, 224, 192)  # the colour of 255 in its palette

#: Class, label id, colour; in the order of the train ids.
CITYSCAPES: tuple[tuple[str, int, RGB], ...] = (
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)
_CITYSCAPES_IDS = 34  # label ids are 0 … 33; those of no class do not count

CAMVID: tuple[tuple[str, RGB], ...] = (
    ("sky", (128, 128, 128)),
    ("building", (128, 0, 0)),
    ("pole", (192, 192, 128)),
    ("road", (128, 64, 128)),
    ("pavement", (60, 40, 222)),
    ("tree", (128, 128, 0)),
    ("signsymbol", (192, 128, 128)),
    ("fence", (64, 64, 128)),
    ("car", (64, 0, 128)),
    ("pedestrian", (64, 64, 0)),
    ("bicyclist", (0, 128, 192)),
)

_VOC_STEM = re.compile(r"20(0[7-9]|1[0-2])_\d{6}")  # the year of a challenge, number
_CAMVID_STEM = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?\d+")  # film, frame


class Known(NamedTuple):
    """A set whose classes are known."""

    name: str
    specs: tuple[ClassSpec, ...]
    said: str
    """What does not count, for people."""


def _ignored(value: int | None, colour: RGB | None = None) -> ClassSpec:
    return ClassSpec("ignored", value, colour, ignored=True)


VOC = Known(
    "Pascal VOC",
    (
        *(
            ClassSpec(name, value, colour)
            for value, (name, colour) in enumerate(
                zip(VOC_CLASSES, default_colours(21), strict=True)
            )
        ),
        _ignored(255, _VOC_BORDER),
    ),
    "the border of objects (255) does not count",
)
CITYSCAPES_IDS = Known(
    "Cityscapes, label ids",
    (
        *(ClassSpec(name, value, colour) for name, value, colour in CITYSCAPES),
        *(
            _ignored(value)
            for value in (*range(_CITYSCAPES_IDS), 255)
            if value not in {label for _, label, _ in CITYSCAPES}
        ),
    ),
    "label ids outside the 19 classes do not count",
)
CITYSCAPES_TRAIN_IDS = Known(
    "Cityscapes, train ids",
    tuple(ClassSpec(name, value, colour) for value, (name, _, colour) in enumerate(CITYSCAPES)),
    "255 does not count",
)
CAMVID_11 = Known(
    "CamVid",
    (
        *(ClassSpec(name, value, colour) for value, (name, colour) in enumerate(CAMVID)),
        _ignored(11, (0, 0, 0)),
    ),
    "11 (unlabelled) does not count",
)


def is_voc(stems: Iterable[str]) -> bool:
    """Whether photos are named as those of Pascal VOC: 2007_000032."""
    return all(_VOC_STEM.fullmatch(stem) for stem in stems)


def is_camvid(stems: Iterable[str]) -> bool:
    """Whether photos are named as those of CamVid: 0001TP_006690, 0006R0_f00930, Seq05VD_f00000."""
    return all(_CAMVID_STEM.fullmatch(stem) for stem in stems)
