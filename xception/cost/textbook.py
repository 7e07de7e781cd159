"""One convolution worked through by formula: regular, and separable in its place.

The arithmetic is written out here and not taken from a network, so that each can check the other.
"""

from dataclasses import dataclass

from xception.cost.separable import theory
from xception.errors import UserError

LARGEST = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Textbook:
    """A convolution as exercises give it.

    Raises:
        UserError: a number is out of range, or the window is larger than the padded image.
    """

    height: int
    width: int
    in_channels: int
    kernel: int
    filters: int  # channels of the output
    stride: int = 1
    padding: int = 0  # pixels on each side
    dilation: int = 1
    depth_multiplier: int = 1
    bias: bool = False

    def __post_init__(self):
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            least = 0 if name in ("padding", "bias") else 1
            if not least <= value <= LARGEST:
                raise UserError(
                    f"{name.replace('_', ' ')} must be from {least} to {LARGEST:,}, not {value}"
                )
        for side in (self.height, self.width):
            if side + 2 * self.padding < self.reach:
                raise UserError(
                    f"a window of {self.reach} pixels does not fit into an image of "
                    f"{self.height}x{self.width} padded by {self.padding}"
                )

    @property
    def reach(self) -> int:
        """Pixels from the first tap of the window to its last, both counted."""
        return (self.kernel - 1) * self.dilation + 1

    def side(self, pixels: int) -> int:
        """Places of the output along a side of the input."""
        return (pixels + 2 * self.padding - self.reach) // self.stride + 1

    @property
    def places(self) -> int:
        """Places of the output."""
        return self.side(self.height) * self.side(self.width)

    @property
    def biases(self) -> int:
        """Values of the bias: one per filter, of the last convolution only."""
        return self.filters if self.bias else 0

    @property
    def regular_weights(self) -> int:
        """k x k x M x N."""
        return self.kernel**2 * self.in_channels * self.filters

    @property
    def depthwise_weights(self) -> int:
        """k x k x M x m."""
        return self.kernel**2 * self.in_channels * self.depth_multiplier

    @property
    def pointwise_weights(self) -> int:
        """M x m x N."""
        return self.in_channels * self.depth_multiplier * self.filters

    @property
    def separable_weights(self) -> int:
        """Of both its parts."""
        return self.depthwise_weights + self.pointwise_weights

    @property
    def theory(self) -> float:
        """m (1/N + 1/k²)."""
        kernel = (self.kernel, self.kernel)
        return theory(kernel, (1, 1), self.in_channels, self.filters, self.depth_multiplier)

    def figures(self) -> dict[str, object]:
        """Everything, under stable names."""
        parts = {
            "regular": (self.regular_weights, self.biases),
            "separable": (self.separable_weights, self.biases),
            "depthwise": (self.depthwise_weights, 0),
            "pointwise": (self.pointwise_weights, self.biases),
        }
        return {
            "output": [self.side(self.height), self.side(self.width), self.filters],
            **{
                name: {"macs": weights * self.places, "parameters": weights + biases}
                for name, (weights, biases) in parts.items()
            },
            "ratio": self.separable_weights / self.regular_weights,
            "theory": self.theory,
        }

    def steps(self) -> list[str]:
        """The way to the figures, line by line."""
        k, m, n, d = self.kernel, self.in_channels, self.filters, self.depth_multiplier
        high, wide = self.side(self.height), self.side(self.width)
        times = f" x {d}" if d > 1 else ""
        lines = ["output side = floor((side + 2 x padding - reach) / stride) + 1"]
        reach = f"reach = ({k} - 1) x {self.dilation} + 1 = {self.reach}"
        lines.append(f"  {reach}{'' if self.dilation > 1 else ', the kernel itself'}")
        for name, pixels, result in (("height", self.height, high), ("width", self.width, wide)):
            lines.append(
                f"  {name} = floor(({pixels} + 2 x {self.padding} - {self.reach}) / {self.stride})"
                f" + 1 = {result}"
            )
        lines += [
            f"  output: {high}x{wide}x{n}",
            "",
            "regular convolution: every filter sees every channel",
            f"  weights = {k} x {k} x {m} x {n} = {self.regular_weights:,}",
            *self._biased(self.regular_weights),
            self._macs("", self.regular_weights),
            "",
            "separable convolution: depthwise, then pointwise",
            f"  depthwise weights = {k} x {k} x {m}{times} = {self.depthwise_weights:,}",
            f"  pointwise weights = {m}{times} x {n} = {self.pointwise_weights:,}",
            f"  weights = {self.separable_weights:,}",
            *self._biased(self.separable_weights),
            self._macs("depthwise ", self.depthwise_weights),
            self._macs("pointwise ", self.pointwise_weights),
            f"  MACs = {self.places * self.separable_weights:,}",
            "",
            self._ratio(),
        ]
        return lines

    def _macs(self, part: str, weights: int) -> str:
        """Every weight is used once at each place of the output."""
        places = f"{self.side(self.height)}x{self.side(self.width)}"
        return f"  {part}MACs = {places} x {weights:,} = {self.places * weights:,}"

    def _biased(self, weights: int) -> list[str]:
        if not self.bias:
            return []
        return [f"  parameters = {weights:,} + {self.biases} biases = {weights + self.biases:,}"]

    def _ratio(self) -> str:
        d, taps = self.depth_multiplier, self.kernel**2
        counted = f"{self.separable_weights:,} / {self.regular_weights:,}"
        formula = f"1/{self.filters} + 1/{taps}"
        formula = f"{d} x ({formula})" if d > 1 else formula
        times = 1 / self.theory
        end = (
            f"{times:.2f} times fewer MACs" if times >= 1 else f"{1 / times:.2f} times as many MACs"
        )
        return f"separable / regular = {counted} = {formula} = {self.theory:.4f}: {end}"
