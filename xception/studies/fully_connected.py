"""Layers before the logistic regression. Chollet 2017, arXiv:1610.02357, §4.1, Table 2."""

from xception.studies.claims import Better
from xception.studies.study import Arm, Study

STUDY = Study(
    name="fully-connected",
    title="Fully connected layers",
    sentence=(
        "On pictures with several labels, two fully connected layers before the logistic "
        "regression raise the MAP@100."
    ),
    source="Chollet 2017, §4.1, Table 2",
    claim=Better("with", than=("without",)),
    arms=(
        Arm("without"),
        Arm("with", tiny={"model_options.fully_connected": [256, 256]}),
    ),
    photos="mosaics",
    metric="map_at_k",
    tiny={"preprocess.size": 64, "model_options.stem_stride": 2, "epochs": 8},
    no_full="for which the paper has JFT and FastEval14k, and these are not public",
    remarks=(
        "The pictures are mosaics of 2×2 photos with the labels of all four, and the classes "
        "weigh as often as they come: a stand-in for JFT and FastEval14k, which are not public.",
        "With fewer than a hundred classes MAP@100 is the mean average precision, in which each "
        "class weighs as it comes.",
    ),
)
