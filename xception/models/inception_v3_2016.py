"""Inception V3 as Keras had it in August 2016, whose size stands in Xception's Table 3.

23,626,728 trainable parameters with 1000 classes: Chollet 2017, arXiv:1610.02357, Table 3. Against
the network of today: all modules of the 35x35 grid pool into 32 channels; the longest branch of the
last module of the 17x17 grid begins with 160; averages, not maxima, lead to the 8x8 grid; and every
convolution has a bias, then its ReLU, then the normalisation. The later network took each of these
back.
"""

from xception.models.inception_parts import Pool
from xception.models.inception_v3 import (
    Grid,
    InceptionV3,
    figure5,
    figure6,
    figure7,
    figure10_to_8,
    figure10_to_17,
)

GRIDS_2016 = (
    Grid("grid35", (figure5(32), figure5(32), figure5(32))),
    Grid(
        "grid17",
        (
            figure10_to_17(),
            figure6(128, 128),
            figure6(160, 160),
            figure6(160, 160),
            figure6(192, 160),
        ),
    ),
    Grid("grid8", (figure10_to_8(Pool("average", 2)), figure7(), figure7())),
)


class InceptionV3August2016(InceptionV3):
    """The variant of Table 3; it takes the options of `InceptionV3`."""

    GRIDS = GRIDS_2016
    NORM_LAST = True
