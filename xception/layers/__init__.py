"""Modules that more than one model uses."""

from xception.layers.conv import Conv2d as Conv2d
from xception.layers.conv import MaxPool2d as MaxPool2d
from xception.layers.dropout import Dropout as Dropout
from xception.layers.padding import Padding as Padding
from xception.layers.separable import SeparableConv2d as SeparableConv2d
