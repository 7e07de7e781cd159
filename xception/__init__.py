"""Depthwise separable convolutions in vision."""

from xception._version import __version__ as __version__
