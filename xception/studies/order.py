"""Depthwise first or pointwise first. Chollet 2017, arXiv:1610.02357, §2; Haase & Amthor 2020."""

from xception.studies.claims import Alike
from xception.studies.study import Arm, Study

STUDY = Study(
    name="order",
    title="Which of the two comes first",
    sentence=("It is unimportant whether the depthwise or the pointwise convolution comes first."),
    source='Chollet 2017, §2; contradicted by Haase & Amthor 2020 ("BSConv")',
    claim=Alike("depthwise-first", "pointwise-first", margin=0.01),
    arms=(
        Arm("depthwise-first"),  # as in the paper's network
        Arm("pointwise-first", {"model_options.order": "pointwise_first"}),
    ),
    remarks=(
        "Alike means: within one point of accuracy. The two orders differ a little in parameters, "
        "because the depthwise filters stand on the wider side of a layer or on the narrower.",
    ),
)
