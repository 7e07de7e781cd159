"""State dicts of timm, torchvision and Cadene's port, read by our own reader and written back."""

from pathlib import Path
from typing import Any

import oracles
import pytest
import safetensors.torch
import torch
from torch import nn

from xception.models.zoo import create_model
from xception.weights.convert import read_foreign
from xception.weights.foreign_files import choose_source, write_foreign
from xception.weights.names.sources import SOURCES

CLASSES = 5
# Their name, how it is built, our name, our options that are no defaults, and an even and odd size.
NETWORKS = {
    "legacy_xception": ("timm", "xception", {"padding": "symmetric", "norm_epsilon": 1e-5}),
    "mobilenetv1_100": ("timm", "mobilenet_v1", {"padding": "symmetric", "norm_epsilon": 1e-5}),
    "xception41": ("timm", "xception41", {}),
    "inception_v3": ("torchvision", "inception_v3", {"pool_border": "include", "auxiliary": True}),
}


def build(network: str) -> Any:
    """A network of zeros: its own random start takes longer than all else."""
    with torch.device("meta"):
        if NETWORKS[network][0] == "timm":
            model = oracles.timm().create_model(network, num_classes=CLASSES)
        else:
            make = oracles.torchvision_models().inception_v3
            model = make(weights=None, num_classes=CLASSES, init_weights=False)
    model = model.to_empty(device="cpu")
    for value in model.state_dict().values():
        value.zero_()
    return model


def scramble(model: nn.Module, seed: int, *, seen: bool = True) -> Any:
    """Random weights; if `seen`, statistics of a random batch, or sums grow with each layer."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_var") or (name.endswith("weight") and value.ndim == 1):
            value.copy_(1 + torch.rand(value.shape, generator=generator))
        elif value.is_floating_point():
            spread = (value[0].numel() / 2) ** -0.5 if value.ndim > 1 else 0.1
            value.copy_(spread * torch.randn(value.shape, generator=generator))
    if seen:
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            model.train()(torch.rand(2, 3, 96, 96, generator=generator) * 2 - 1)
    return model.eval()


def image(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height)
    return torch.rand(1, 3, height, width, generator=generator) * 2 - 1


@pytest.mark.parametrize("network", NETWORKS)
def test_the_same_answers_and_back_the_same_bytes(network: str, tmp_path: Path):
    library, ours, options = NETWORKS[network]
    theirs = scramble(build(network), 1, seen=library == "timm")
    file, again = tmp_path / "theirs.pth", tmp_path / "again.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}}, file)
    converted = read_foreign(file)
    model = converted.model
    assert model.card.architecture.name == ours
    assert model.options.items() >= {**options, "num_classes": CLASSES}.items()
    with torch.inference_mode():
        for size in ((98, 107), (107, 98)):
            expected, found = theirs(image(*size)), model(image(*size))
            assert expected.std() > 1e-2
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    source = choose_source(again, ours, library)
    assert source is not None
    write_foreign(again, model, source)
    state = torch.load(again, weights_only=True)
    assert state.keys() == theirs.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in theirs.state_dict().items())
    theirs.load_state_dict(state, strict=True)


def test_timm_has_torchvision_names_for_inception_v3_and_no_tower():
    (source,) = (one for one in SOURCES if one.layout == "torchvision")
    with torch.device("meta"):
        theirs = oracles.timm().create_model("inception_v3")
        ours = create_model("inception_v3", **source.options, auxiliary=False).state_dict()
    there = {row.theirs: tuple(ours[row.ours].shape) for row in source.rows(ours)}
    assert there == {name: tuple(value.shape) for name, value in theirs.state_dict().items()}


def test_the_copied_naming_with_matrices(tmp_path: Path):
    theirs = scramble(build("legacy_xception"), 2)
    state = {
        name: value[:, :, 0, 0] if "pointwise" in name else value
        for name, value in theirs.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    file, again = tmp_path / "xception-b5690688.pth", tmp_path / "again.safetensors"
    torch.save(state, file)
    converted = read_foreign(file)
    assert converted.source.layout == "b5690688"
    with torch.inference_mode():
        torch.testing.assert_close(
            converted.model(image(98, 107)), theirs(image(98, 107)), atol=1e-4, rtol=0
        )
    source = choose_source(again, "xception", "b5690688")
    assert source is not None
    write_foreign(again, converted.model, source)
    written = safetensors.torch.load_file(again)
    assert all(torch.equal(written[name], value) for name, value in state.items())


def test_cadene_calls_the_classifier_last_linear(tmp_path: Path):
    state = {
        name.replace("fc.", "last_linear."): value
        for name, value in build("legacy_xception").state_dict().items()
    }
    file = tmp_path / "xception.pth"
    torch.save(state, file)
    converted = read_foreign(file)
    assert converted.source.layout == "cadene"
    assert not converted.headless
