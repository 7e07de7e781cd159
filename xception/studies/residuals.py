"""With and without residual connections. Chollet 2017, arXiv:1610.02357, §4.6, Figure 9."""

from xception.studies.claims import Better
from xception.studies.study import Arm, Study

PLAIN = {"model_options.residual": False}

STUDY = Study(
    name="residuals",
    title="Residual connections",
    sentence="Residual connections help Xception to a better final performance.",
    source="Chollet 2017, §4.6, Figure 9",
    claim=Better("residual", than=("plain", "plain-third", "plain-tenth")),
    arms=(
        Arm("residual"),
        Arm("plain", PLAIN),
        Arm("plain-third", {**PLAIN, "optimizer.learning_rate": 0.015}),
        Arm("plain-tenth", {**PLAIN, "optimizer.learning_rate": 0.0045}),
    ),
    remarks=(
        'The paper calls its comparison at one learning rate "uncharitable". So the network '
        "without residual connections is also trained with a third and a tenth of the rate, and "
        "the claim must hold against each.",
        "The paper says that it converges faster, too: the curves show it, and "
        "the verdict does not judge it.",
        "Without the projections of its shortcuts the plain network is smaller: at tiny scale with "
        "10 classes it has 8.6 % fewer parameters and 4.5 % fewer multiply-adds, at full scale "
        "4.3 % and 2.8 %.",
    ),
)
