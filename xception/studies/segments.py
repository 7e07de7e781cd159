"""From a regular to a depthwise separable convolution. Chollet 2017, arXiv:1610.02357, §1.2, §5.

The channels are kept apart in 1, 4, 16, 64 segments or each for itself, at as many parameters or at
as many multiply-adds as the depthwise network has.
"""

from xception.studies.claims import SomeBetter
from xception.studies.study import Arm, Equal, Study

SENTENCE = (
    "Depthwise separable convolutions need not be the best point of the spectrum: with some number "
    "of segments between one and one per channel, {budget}, the network is better."
)
COUNTS = (1, 4, 16, 64)
BETWEEN = ("segments-4", "segments-16", "segments-64")
# Of the depthwise network with 10 and with 1000 classes; for other photos it is counted anew.
PARAMETERS = {"tiny": 729_914, "full": 22_855_952}
# That give as many multiply-adds as it has: 12.9 million with width 0.25 at 32 pixels, 8.36 billion
# at 299.
WIDTHS = {
    "tiny": {1: 0.0928, 4: 0.1588, 16: 0.2174, 64: 0.245},
    "full": {1: 0.3415, 4: 0.5899, 16: 0.8281, 64: 0.9525},
}
SMALL = {"middle": 2, "stem_stride": 1}  # as in the settings of the tiny scale


def at_equal_parameters(segments: int) -> Arm:
    """So many segments, and the width that the number of parameters leaves."""
    tiny = {**SMALL, "segments": segments, "parameters": PARAMETERS["tiny"]}
    full = {"segments": segments, "parameters": PARAMETERS["full"]}
    name = f"segments-{segments}"
    return Arm(name, tiny={"model_options": tiny}, full={"model_options": full})


def at_equal_macs(segments: int) -> Arm:
    """So many segments, and the width that the multiply-adds leave."""
    tiny = {**SMALL, "segments": segments, "width": WIDTHS["tiny"][segments], "multiple": 1}
    full = {"segments": segments, "width": WIDTHS["full"][segments], "multiple": 1}
    name = f"segments-{segments}"
    return Arm(name, tiny={"model_options": tiny}, full={"model_options": full})


STUDY = Study(
    name="segments",
    title="The spectrum, at equal parameters",
    sentence=SENTENCE.format(budget="at equal parameters"),
    source="Chollet 2017, §1.2 and §5, left there for future work",
    claim=SomeBetter(BETWEEN, than="depthwise"),
    arms=(*map(at_equal_parameters, COUNTS), Arm("depthwise")),
    equal=Equal("parameters", "depthwise"),
)
AT_EQUAL_MACS = Study(
    name="segments-macs",
    title="The spectrum, at equal multiply-adds",
    sentence=SENTENCE.format(budget="at equal multiply-adds"),
    source="Chollet 2017, §1.2 and §5, left there for future work",
    claim=SomeBetter(BETWEEN, than="depthwise"),
    arms=(*map(at_equal_macs, COUNTS), Arm("depthwise")),
    equal=Equal("macs", "depthwise"),
)
