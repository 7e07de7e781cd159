"""MACs against fvcore, a counter of another origin; benchmarks/cost_against_fvcore.py has forty."""

import importlib.util
import warnings
from collections.abc import Mapping

import oracles
import pytest
import torch

from xception.cost.count import count

PRODUCTS = ("conv", "linear", "addmm", "matmul", "mm", "bmm", "einsum", "baddbmm")


def theirs(model: torch.nn.Module, size: int) -> tuple[Mapping[str, float], Mapping[str, int]]:
    """What fvcore counts, by operator, one multiply-add as 1; and what it leaves out."""
    for package in ("fvcore", "iopath", "yacs", "tabulate", "termcolor", "portalocker"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"THE ORACLE IS MISSING: pip install --no-deps {package}")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of torch's script and tracer
        flop_count = importlib.import_module("fvcore.nn.flop_count")
        analysis = flop_count.FlopCountAnalysis(model, torch.zeros(1, 3, size, size))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return analysis.tracer_warnings("none").by_operator(), analysis.unsupported_ops()


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet10t", 64),
        ("mobilenetv3_small_050", 64),  # gates
        ("convnext_atto", 64),  # linear layers on channels that lie last
    ],
)
def test_equal_macs(name: str, size: int):
    model = oracles.timm().create_model(name).eval()
    cost = count(model, size)
    by_operator, _ = theirs(model, size)
    convolutions = sum(one.macs or 0 for one in cost.operators if one.convolution)
    assert convolutions == by_operator["conv"]
    assert cost.total["macs"] == sum(by_operator.get(kind, 0) for kind in PRODUCTS)


def test_fused_attention_is_the_difference():
    oracles.timm()
    layers = importlib.import_module("timm.layers")
    model = oracles.timm().create_model("mobilevit_xxs").eval()
    cost = count(model, 64)
    by_operator, left_out = theirs(model, 64)
    counted = sum(by_operator.get(kind, 0) for kind in PRODUCTS)
    attention = next(group["macs"] for group in cost.groups() if group["kind"] == "matmul")
    assert cost.total["macs"] - counted == attention > 0
    assert left_out["aten::scaled_dot_product_attention"] == 9  # its blocks: 2 + 4 + 3
    try:
        layers.set_fused_attn(False)
        plain = oracles.timm().create_model("mobilevit_xxs").eval()
    finally:
        layers.set_fused_attn(True)
    by_operator, _ = theirs(plain, 64)
    assert count(plain, 64).total["macs"] == sum(by_operator.get(kind, 0) for kind in PRODUCTS)
    assert count(plain, 64).total["macs"] == cost.total["macs"]
