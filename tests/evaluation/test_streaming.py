import pytest
import torch
from torch import nn

from xception.evaluation.streaming import Chain, Step, Stream
from xception.layers.conv import Conv2d, MaxPool2d
from xception.layers.separable import SeparableConv2d

RANDOM = torch.Generator()


def image(height: int, channels: int = 3, width: int = 11) -> torch.Tensor:
    return torch.randn(1, channels, height, width, generator=RANDOM.manual_seed(height))


def run(
    step: Step, x: torch.Tensor, bands: int, rows: int, most: int | None = None
) -> torch.Tensor:
    """The output of a step that gets `bands` rows of its input at a time."""
    whole = step.run(x)
    stream = Stream(step, x.shape[2], whole.shape[2], rows, most)
    tops = range(0, x.shape[2], bands)
    given = [part for top in tops for part in stream.push(x[:, :, top : top + bands])]
    if most is None:
        assert all(part.shape[2] >= rows for part in given[:-1])
    else:
        assert max(part.shape[2] for part in given) <= most
    return torch.cat(given, dim=2)


LAYERS = {
    "3x3": lambda: Conv2d(3, 4, 3),
    "1x1": lambda: Conv2d(3, 4, 1),
    "atrous": lambda: Conv2d(3, 4, 3, dilation=5),
    "stride 2, same": lambda: Conv2d(3, 4, 3, stride=2),
    "stride 2, symmetric": lambda: Conv2d(3, 4, 3, stride=2, padding=1),
    "stride 2, keras": lambda: Conv2d(3, 4, 3, stride=2, padding=(0, 1, 0, 1)),
    "valid": lambda: Conv2d(3, 4, 3, padding="valid"),
    "stride 2, valid": lambda: Conv2d(3, 4, 3, stride=2, padding="valid"),
    "torch's": lambda: nn.Conv2d(3, 4, 3, padding=2, dilation=2),
    "torch's same": lambda: nn.Conv2d(3, 4, 5, padding="same"),
    "pooling": lambda: MaxPool2d(3, 2),
    "pooling, symmetric": lambda: MaxPool2d(3, 2, padding=1),
    "dense pooling": lambda: MaxPool2d(3, 2, dense=True),
    "dense pooling, dilated": lambda: MaxPool2d(3, 2, dilation=2, dense=True),
    "separable": lambda: SeparableConv2d(3, 4, stride=2),
    "uneven segments": lambda: SeparableConv2d(3, 4, segments=2, dilation=2),
    "several": lambda: nn.Sequential(
        Conv2d(3, 4, 3), nn.ReLU(), Conv2d(4, 4, 3, stride=2), Conv2d(4, 2, 3, dilation=2)
    ),
}


@pytest.mark.parametrize("height", [17, 18, 33, 41])
@pytest.mark.parametrize("name", LAYERS)
def test_bands_give_what_the_whole_gives(name: str, height: int):
    torch.manual_seed(0)
    step, x = Step.of(LAYERS[name]()), image(height)
    with torch.inference_mode():
        whole = step.run(x)
        for bands, rows, most in ((1, 1, 1), (3, 1, None), (4, 3, None), (16, 1, 3), (64, 1, 2)):
            found = run(step, x, bands, rows, most)
            torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)


def test_what_a_row_depends_on():
    assert (Step.of(Conv2d(1, 1, 3)).above, Step.of(Conv2d(1, 1, 3)).below) == (1, 1)
    assert (Step.of(nn.ReLU()).above, Step.of(nn.ReLU()).stride) == (0, 1)
    deep = Step.of(Conv2d(1, 1, 3, stride=2, padding=1), Conv2d(1, 1, 3, dilation=2))
    assert (deep.above, deep.below, deep.stride, deep.period) == (5, 5, 2, 2)


def test_layers_beside_the_path_do_not_count():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = Conv2d(3, 4, 3, stride=2)
            self.shortcut = Conv2d(3, 4, 1, stride=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.body(x) + self.shortcut(x)

    step = Step.of(Block())
    assert step.stride == 2
    with torch.inference_mode():
        torch.testing.assert_close(run(step, image(21), 5, 1), step.run(image(21)))


def test_a_chain_of_steps():
    torch.manual_seed(1)
    steps = [Step.of(Conv2d(3, 6, 3, stride=2)), Step.of(Conv2d(6, 6, 3)), Step.of(Conv2d(6, 2, 3))]
    x = image(65, width=40)
    with torch.inference_mode():
        whole = x
        for step in steps:
            whole = step.run(whole)
        chain = Chain(steps, x[:, :, :, :10], widening=4, band_bytes=6 * 20 * 4 * 4)
        assert chain.image_rows == 7  # four rows of the first map, rounded down
        assert [stream.rows for stream in chain.streams] == [1, 4, 1]
        assert [stream.most for stream in chain.streams] == [None, 4, 12]
        tops = range(0, 65, chain.image_rows)
        parts = [
            part
            for top in tops
            for step, part in chain.push(x[:, :, top : top + chain.image_rows])
            if step == 2
        ]
    assert len(parts) > 2
    torch.testing.assert_close(torch.cat(parts, dim=2), whole)
