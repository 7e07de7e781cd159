from collections.abc import Iterable
from functools import cache
from typing import Any

import oracles
import pytest
import torch
from networks import lively
from torch import nn

from xception.models.aligned_xception import AlignedXception, Block
from xception.models.zoo import create_model
from xception.weights.convert import to_foreign
from xception.weights.names.sources import SOURCES


@cache
def ours(name: str) -> AlignedXception:
    torch.manual_seed(0)
    model = create_model(name)
    assert isinstance(model, AlignedXception)
    return lively(model, 64)


def with_options(model: AlignedXception, **options: Any) -> AlignedXception:
    """The same weights in a network of other options."""
    with torch.device("meta"):
        other = AlignedXception(**model.options | options).eval()
    other.load_state_dict(model.state_dict(), assign=True)
    return other


def parts_in_order(model: AlignedXception) -> list[nn.Module]:
    """Our layers in the order in which timm registers those of its aligned Xception."""
    parts: list[nn.Module] = [*model.stem]
    for block in (*model.entry, *model.middle, model.exit[0], model.exit[1:]):
        separables: Iterable[nn.Module] = block.children()
        if isinstance(block, Block):
            separables = block.separables
            if isinstance(block.shortcut, nn.Sequential):
                parts += block.shortcut
        for separable in separables:
            if not isinstance(separable, nn.ReLU):
                names = ("depthwise", "norm_between", "pointwise", "norm_after")
                parts += (separable.get_submodule(name) for name in names)
    return [*parts, model.classifier]


@cache
def timm_xception(name: str, output_stride: int):
    with torch.device("meta"):
        theirs = oracles.timm().create_model(name, output_stride=output_stride).eval()
    tensors = [
        tensor for part in parts_in_order(ours(name)) for tensor in part.state_dict().values()
    ]
    names = theirs.state_dict()
    theirs.load_state_dict(dict(zip(names, tensors, strict=True)), strict=True, assign=True)
    return theirs


# timm's xception71 at output stride 8 lacks the weights of one shortcut: where the stride goes, and
# the number of channels stays, it adds the input itself. The released networks keep the projection.
CASES = [
    ("xception41", 32, (75, 97)),
    ("xception41", 32, (64, 130)),
    ("xception41", 16, (65, 82)),
    ("xception41", 8, (51, 64)),
    ("xception65", 32, (96, 75)),
    ("xception65", 16, (66, 65)),
    ("xception71", 32, (79, 98)),
    ("xception71", 16, (65, 66)),
]


@pytest.mark.parametrize(("name", "output_stride", "size"), CASES)
def test_logits_equal_timm(name, output_stride, size):
    theirs = timm_xception(name, output_stride)
    generator = torch.Generator().manual_seed(size[0])
    x = torch.rand(1, 3, *size, generator=generator) * 2 - 1
    model = with_options(ours(name), output_stride=output_stride)
    with torch.no_grad():
        expected = theirs(x)
        logits = model(x)
    # So deep a network of random weights answers with logits of 1 to 30, which are made 1 here.
    assert expected.std() > 0.5
    assert ((logits - expected) / expected.std()).abs().max() <= 1e-4


@pytest.mark.parametrize("name", ["xception41", "xception65", "xception71"])
def test_the_table_of_names_gives_timm_each_tensor_in_its_place(name):
    """timm's tensors were filled in the order of the layers, without the table."""
    (source,) = (one for one in SOURCES if (one.layout, one.model) == ("timm", name))
    converted = to_foreign(ours(name), source)
    expected = timm_xception(name, 32).state_dict()
    assert converted.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(torch.from_numpy(converted[key]), value), key


def test_the_weights_show_where_a_relu_or_a_pixel_is_amiss():
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = ours("xception41")
    with torch.no_grad():
        expected = timm_xception("xception41", 32)(x)
        for options in ({"activation": "relu"}, {"padding": "same"}, {"output_stride": 16}):
            assert (with_options(model, **options)(x) - expected).abs().max() > 1e-2, options
