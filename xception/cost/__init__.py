"""What a network costs: on paper (`count`), against regular convolutions (`compare`), in time."""

from xception.cost.count import Cost as Cost
from xception.cost.count import count as count
from xception.cost.count import count_call as count_call
from xception.cost.separable import compare as compare
