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
        Arm(
            "with",
            tiny={"model_options.fully_connected": [256, 256]},
            full={"model_options.fully_connected": [4096, 4096]},
        ),
    ),
    photos="mosaics",
    metric="map_at_k",
    tiny={"preprocess.size": 64, "model_options.stem_stride": 2, "epochs": 8},
    full={  # §4.2-4.3 for JFT: the recipe xception-jft
        "preprocess.size": 64,
        "dropout": 0.0,
        "epochs": 3,
        "optimizer": {
            "name": "rmsprop",
            "learning_rate": 0.001,
            "momentum": 0.9,
            "decay": 0.9,
            "epsilon": 1.0,
            "weight_decay": 1e-5,
        },
        "schedule": {"name": "exponential", "rate": 0.9, "every_samples": 3_000_000},
    },
    remarks=(
        "The pictures are mosaics of 2×2 photos with the labels of all four, and the classes "
        "weigh as often as they come: a stand-in for JFT and FastEval14k, which are not public.",
        "With fewer than a hundred classes MAP@100 is the mean average precision, in which each "
        "class weighs as it comes.",
    ),
)
