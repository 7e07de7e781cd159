"""What stands between depthwise and pointwise. Chollet 2017, arXiv:1610.02357, §4.7, Figure 10."""

from xception.studies.claims import Better
from xception.studies.study import Arm, Study

STUDY = Study(
    name="activation",
    title="Between depthwise and pointwise",
    sentence=(
        "Without a non-linearity between depthwise and pointwise convolution Xception ends better "
        "than with ReLU or ELU there."
    ),
    source="Chollet 2017, §4.7, Figure 10",
    claim=Better("none", than=("relu", "elu")),
    arms=(
        Arm("none"),  # as in the paper's network
        *(Arm(name, {"model_options.activation": name}) for name in ("relu", "elu")),
    ),
    remarks=(
        "The paper says that it converges faster, too: the curves show it, and "
        "the verdict does not judge it.",
    ),
)
