"""What the studies say of themselves, against what they are."""

import pytest
import torch

from xception import create_model
from xception.cost.count import count
from xception.studies.catalogue import STUDIES
from xception.studies.study import Scale, Study


@pytest.mark.parametrize("study", STUDIES.values(), ids=list(STUDIES))
def test_no_claim_speaks_of_speed_which_no_verdict_judges(study: Study):
    assert "converge" not in study.sentence
    assert "fast" not in study.sentence


def test_where_the_paper_claims_speed_the_page_says_that_it_is_not_judged():
    for name in ("residuals", "activation"):
        assert "the verdict does not judge it" in " ".join(STUDIES[name].remarks)


def test_the_weight_decay_of_inception_v3_is_told_as_it_is():
    study = STUDIES["inception-vs-xception"]
    decays = {
        scale: [study.config(arm, 0, scale).optimizer.weight_decay for arm in study.arms]
        for scale in ("tiny", "full")
    }
    assert decays == {"tiny": [1e-5, 1e-5], "full": [4e-5, 1e-5]}
    (remark,) = [remark for remark in study.remarks if "4e-5" in remark]
    assert "At tiny scale both have the weight decay 1e-5" in remark


def less(scale: Scale, classes: int, size: int) -> str:
    """By how much the plain network is smaller: `8.6 % of parameters, 4.5 % of multiply-adds`."""
    study = STUDIES["residuals"]
    sizes: list[int] = []
    macs: list[int] = []
    for arm in study.arms[:2]:
        options = study.config(arm, 0, scale).model_options
        with torch.device("meta"):
            network = create_model("xception", **options, num_classes=classes)
        sizes.append(sum(values.numel() for values in network.parameters()))
        macs.append(count(network, size).total["macs"])
    return " ".join(f"{100 * (1 - plain / whole):.1f}" for whole, plain in (sizes, macs))


def test_by_how_much_the_plain_network_is_smaller():
    (remark,) = [one for one in STUDIES["residuals"].remarks if "fewer" in one]
    assert less("tiny", 10, 32) == "8.6 4.5"
    assert "at tiny scale with 10 classes it has 8.6 % fewer parameters and 4.5 % fewer" in remark
    assert less("full", 1000, 299) == "4.3 2.8"
    assert "at full scale 4.3 % and 2.8 %" in remark
