"""Networks as tests want them: with weights that show mistakes, and the same ones in Keras."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional


def pictures(number: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Broad patches of colour, with noise: unlike noise alone, one differs from the other."""
    patches = functional.interpolate(
        torch.randn(number, channels, 4, 4), (height, width), mode="bilinear"
    )
    return 0.7 * patches + 0.2 * torch.randn(number, channels, height, width)


def lively(model: Any, size: int = 96) -> Any:
    """A classifier as if it had seen pictures of `size`: no statistic is 0 or 1.

    At sizes far above `size`, the edges count for less than the statistics expect, and numbers grow
    from layer to layer.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        if norm.weight is not None:  # Keras' Inception V3 has offsets only
            nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.3)
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(pictures(8 if size < 200 else 2, model.options["in_channels"], size, size))
        for norm, momentum in zip(norms, momenta, strict=True):
            mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
            mean += 0.1 * variance.sqrt() * torch.randn_like(mean)
            variance *= torch.empty_like(variance).uniform_(0.8, 1.2)
            norm.momentum = momentum
        nn.init.normal_(model.classifier.weight, std=1 / model.classifier.weight.shape[1] ** 0.5)
        nn.init.normal_(model.classifier.bias)
    return model.eval()


def fill_keras(model: Any, layers: Mapping[str, nn.Module]) -> None:
    """Put the weights of torch modules into the layers of a Keras model, all of them, by name."""
    with_weights = {layer.name for layer in model.layers if layer.weights}
    assert with_weights == set(layers), with_weights ^ set(layers)
    for name, module in layers.items():
        layer = model.get_layer(name)
        tensors = list(keras_tensors(module))
        assert len(layer.weights) == len(tensors), name
        for weight, tensor in zip(layer.weights, tensors, strict=True):
            # Keras' MobileNet classifies by a 1x1 convolution: the same numbers with two axes more.
            tensor = tensor.reshape(weight.shape) if isinstance(module, nn.Linear) else tensor
            assert tuple(weight.shape) == tuple(tensor.shape), name
            weight.value.data.copy_(tensor)


def keras_tensors(module: nn.Module) -> list[torch.Tensor]:
    """The weights of one module in the order and layout of the Keras layer of its kind."""
    if isinstance(module, nn.BatchNorm2d):
        tensors = [module.weight, module.bias, module.running_mean, module.running_var]
    elif isinstance(module, nn.Linear):
        tensors = [module.weight.T, module.bias]
    elif isinstance(module, nn.Conv2d):
        depthwise = module.groups > 1  # height, width, input, 1
        tensors = [module.weight.permute((2, 3, 0, 1) if depthwise else (2, 3, 1, 0)), module.bias]
    else:
        raise TypeError(f"no Keras layer is known for {type(module).__name__}")
    return [tensor.detach() for tensor in tensors if tensor is not None]
