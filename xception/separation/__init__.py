"""Regular convolutions exchanged for separable ones: the algebra, the plan, the surgery."""

from xception.separation.algebra import Separability as Separability
from xception.separation.algebra import separability as separability
from xception.separation.fit import Separated as Separated
from xception.separation.fit import separate as separate
from xception.separation.statistics import PatchStatistics as PatchStatistics
