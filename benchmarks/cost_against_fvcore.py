"""MACs of timm's convolutional networks: `xception.cost` against fvcore, of another origin.

    python benchmarks/cost_against_fvcore.py > table.md

fvcore (github.com/facebookresearch/fvcore) traces a network with real values and counts what the
traced operators do; ours runs shapes through torch's dispatcher. Both count one multiply-add as 1.
fvcore also gives FLOPs to normalisation and resizing, which are no MACs: they are left out here and
listed. Needs, without their dependencies: timm, torchvision, fvcore, iopath, yacs, tabulate,
termcolor, portalocker.
"""

import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import torch
from fvcore.nn import FlopCountAnalysis
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from oracles import timm

from xception.cost.count import count

SIZE = 224
NETWORKS = """
    alexnet-like: vgg11 vgg16_bn
    residual: resnet18 resnet50 resnet152 wide_resnet50_2 resnext50_32x4d seresnet50 resnetv2_50
    residual, others: regnetx_008 regnety_008 res2net50_26w_4s skresnet18 ecaresnet26t
    dense: densenet121 dla34 hrnet_w18_small vovnet39a
    inception: inception_v3 inception_v4 inception_resnet_v2 legacy_xception xception41
    separable: mobilenetv1_100 mobilenetv2_100 mobilenetv3_large_100 efficientnet_b0 mnasnet_100
    separable, others: ghostnet_100 mixnet_s fbnetc_100 nasnetalarge pnasnet5large repvgg_a0
    younger: convnext_tiny convnextv2_atto nfnet_l0 darknet53 cspresnet50 mobileone_s0
    with attention: mobilevit_xxs mobilevitv2_050 halonet50ts lambda_resnet26t fastvit_t8
"""
# fvcore's names of the operators that multiply, as both count them.
ATTENTION = "aten::scaled_dot_product_attention"
PRODUCTS = ("conv", "linear", "addmm", "matmul", "mm", "bmm", "einsum", "baddbmm")


class Compared(NamedTuple):
    """The MACs of one network, twice."""

    ours: int
    theirs: int
    difference: dict[str, int]  # ours less theirs, by operator of ours, where it is not 0
    left_out: list[str]  # what fvcore gives FLOPs to that are no MACs


def names() -> list[str]:
    """timm's names of all networks of the list."""
    return [name for line in NETWORKS.strip().splitlines() for name in line.split(":")[1].split()]


def compare(model: nn.Module, size: int) -> Compared:
    """Count one network with both; the image has three channels."""
    cost = count(model, size)
    by_theirs, left_out, unknown = fvcore_macs(model, size)
    # Fused attention is one operator, to which fvcore gives nothing; on shapes it runs as two
    # products, the only ones of two things that are computed from the image.
    fused = sum(one.macs or 0 for one in cost.operators if one.kind == "matmul")
    by_ours = Counter(scaled_dot_product_attention=fused if ATTENTION in unknown else 0)
    for one in cost.operators:
        if not (one.kind == "matmul" and ATTENTION in unknown):
            by_ours["convolution" if one.convolution else "product"] += one.macs or 0
    difference = {kind: number - by_theirs[kind] for kind, number in by_ours.items()}
    return Compared(
        cost.total["macs"],
        sum(by_theirs.values()),
        {kind: number for kind, number in difference.items() if number},
        left_out,
    )


def fvcore_macs(model: nn.Module, size: int) -> tuple[Counter[str], list[str], Counter[str]]:
    """fvcore's MACs, its operators that are no products, and those that it leaves out."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracer
        analysis = FlopCountAnalysis(model, torch.zeros(1, 3, size, size))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        by_operator = analysis.by_operator()
        unknown = analysis.unsupported_ops()
    macs: Counter[str] = Counter()
    for operator, number in by_operator.items():
        if operator in PRODUCTS:
            macs["convolution" if operator == "conv" else "product"] += int(number)
    left_out = sorted(operator for operator in by_operator if operator not in PRODUCTS)
    return macs, left_out, unknown


def main() -> None:
    """Print the table, and how many are equal."""
    print("| network | pixels | ours | fvcore | difference | counted by fvcore, no MACs |")
    print("|---|---:|---:|---:|---|---|")
    equal = 0
    for name in sys.argv[1:] or names():
        model = timm().create_model(name).eval()
        size = 256 if name.startswith("halonet") else SIZE  # blocks of 8x8 places must fit
        found = compare(model, size)
        equal += not found.difference
        said = ", ".join(f"{kind} {number:+,}" for kind, number in found.difference.items())
        row = (name, size, f"{found.ours:,}", f"{found.theirs:,}", said or "none")
        print(f"| {' | '.join(map(str, row))} | {', '.join(found.left_out)} |", flush=True)
    print(f"\n{equal} of {len(sys.argv[1:] or names())} equal")


if __name__ == "__main__":
    main()
