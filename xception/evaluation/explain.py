"""Where a network looked: Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2)."""

from typing import Protocol, runtime_checkable

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from xception.evaluation.evaluate import HasModules, evaluating

OVERLAY_STRENGTH = 0.7  # opacity of the colours where the map is 1


@runtime_checkable
class Classifier(HasModules, Protocol):
    """What Grad-CAM asks of a network: a head on what it makes of its last stage."""

    head: nn.Sequential

    @property
    def has_maps(self) -> bool:
        """Whether the stages are maps of places."""
        ...

    def embedding_of(self, stage: Float[Tensor, "b c h w"]) -> Float[Tensor, "b f"]:
        """The embedding that the last stage stands for."""
        ...

    def forward_features(self, x: Float[Tensor, "b c h w"]) -> dict[str, Float[Tensor, "b _ _ _"]]:
        """Named stages, shallow to deep."""
        ...


def grad_cam(
    model: Classifier, x: Float[Tensor, "b c h w"], classes: Int[Tensor, " b"]
) -> Float[Tensor, "b h w"]:
    """The parts of each image that speak for its class, on the last stage of the network.

    Each channel of the stage is weighted by the mean gradient of the class' logit; what the sum
    says for the class (its positive part) is scaled to the size of the image. Every map is divided
    by its maximum; one that says nothing for the class stays zero.

    The network works in evaluation mode; its modes, parameters and gradients are left untouched.

    Args:
        model: any classifier of the zoo.
        x: what the network sees, on its device.
        classes: the class to explain, per image.

    Returns:
        One map per image, in [0, 1].
    """
    with evaluating(model), torch.inference_mode(False):
        with torch.no_grad():
            *_, last = model.forward_features(x).values()
        # Clones, because tensors of a caller's inference mode cannot take part in a gradient.
        stage, chosen = last.clone().requires_grad_(), classes.to(last.device).clone()
        with torch.enable_grad():
            logits = model.head(model.embedding_of(stage))  # b k
            score = logits.gather(1, chosen[:, None]).sum()
        (gradient,) = torch.autograd.grad(score, stage)
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # equation 1
    cam = (weights * stage.detach()).sum(dim=1, keepdim=True).relu()  # equation 2
    cam = F.interpolate(cam, size=x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    peak = cam.amax(dim=(1, 2), keepdim=True)
    return torch.where(peak > 0, cam / peak, 0).clamp(0, 1).float()


def overlay(image: Image.Image, cam: Float[Tensor, "h w"]) -> Image.Image:
    """The image with the map laid over it in colours; where the map is 0 it stays as it is.

    Args:
        image: the part of the photo that the network saw (`Preprocess.fit`), at any resolution.
        cam: a map of `grad_cam`; scaled to the image.
    """
    values = Image.fromarray(cam.cpu().numpy().astype(np.float32))
    share = np.asarray(values.resize(image.size, Image.Resampling.BICUBIC)).clip(0, 1)[:, :, None]
    colours = matplotlib.colormaps["inferno"](0.3 + 0.7 * share[:, :, 0])[:, :, :3] * 255
    opacity = OVERLAY_STRENGTH * share
    mixed = np.asarray(image.convert("RGB")) * (1 - opacity) + colours * opacity
    return Image.fromarray(mixed.round().astype(np.uint8))
