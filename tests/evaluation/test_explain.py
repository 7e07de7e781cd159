import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from xception.evaluation.explain import grad_cam, overlay
from xception.models.xception import Xception


class ByHand(nn.Module):
    """The last stage is the image itself; three logits are weighted sums of two channels' means."""

    def __init__(self) -> None:
        super().__init__()
        linear = nn.Linear(2, 3, bias=False)
        linear.weight.data = torch.tensor([[2.0, 0.0], [1.0, -3.0], [-1.0, -1.0]])
        self.head = nn.Sequential(nn.Dropout(0.5), linear)
        self.has_maps = True

    def embedding_of(self, stage: torch.Tensor) -> torch.Tensor:
        return stage.mean((2, 3))

    def forward_features(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"first": torch.zeros_like(x), "last": x}


def test_maps_worked_out_by_hand():
    image = torch.tensor([[[4.0, 1.0], [0.0, 2.0]], [[1.0, 0.0], [1.0, 1.0]]])
    x = image.expand(3, 2, 2, 2).contiguous()
    found = grad_cam(ByHand(), x, torch.tensor([0, 1, 2]))
    # The gradient of a mean over 4 places is 1/4 everywhere, so the weights are rows / 4.
    # Class 0: relu(2a)/4 -> a / 4.  Class 1: relu(a - 3b) = [[1, 1], [0, 0]].  Class 2: negative.
    expected = [[[1.0, 0.25], [0.0, 0.5]], [[1.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_the_map_is_scaled_to_the_image():
    class Coarse(ByHand):
        def forward_features(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"last": x[:, :, ::2, ::2]}

    x = torch.zeros(1, 2, 4, 4)
    x[0, 0, 0, 0] = 8.0
    found = grad_cam(Coarse(), x, torch.tensor([0]))
    # Bilinear between pixel centres: 1, 3/4, 1/4, 0 along each side.
    line = torch.tensor([1.0, 0.75, 0.25, 0.0])
    torch.testing.assert_close(found[0], line[:, None] * line)


def test_a_model_of_the_zoo_is_left_as_it_was():
    torch.manual_seed(0)
    model = Xception(num_classes=3, width=0.125, middle=1).train()
    model.head.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x = torch.randn(2, 3, 72, 88)
    with torch.inference_mode():  # callers that predict are often within one
        found = grad_cam(model, x, torch.tensor([0, 2]))
    assert found.shape == (2, 72, 88)
    assert found.min() >= 0
    assert found.amax(dim=(1, 2)).tolist() == [1.0, 1.0]
    assert model.training
    assert not model.head.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    model.eval()
    with torch.no_grad():  # what grad_cam assumes about a classifier
        *_, last = model.forward_features(x).values()
        torch.testing.assert_close(model.head(last.mean((2, 3))), model(x))


def test_explaining_one_image_or_many_is_the_same():
    torch.manual_seed(1)
    model = Xception(num_classes=3, width=0.125, middle=1).eval()
    x = torch.randn(3, 3, 71, 71)
    classes = torch.tensor([1, 0, 2])
    together = grad_cam(model, x, classes)
    alone = torch.cat([grad_cam(model, x[i : i + 1], classes[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_overlay_leaves_what_does_not_count(mode):
    image = Image.new(mode, (8, 6), 100)
    assert overlay(image, torch.zeros(3, 4)) == image.convert("RGB")
    cam = torch.zeros(6, 8)
    cam[:, 4:] = 1.0
    painted = np.asarray(overlay(image, cam))
    assert painted.shape == (6, 8, 3)
    assert (painted[:, :4] == image.convert("RGB").getpixel((0, 0))).all()
    assert (painted[:, 4:] != 100).any()
