"""The studies by name."""

from collections.abc import Mapping
from types import MappingProxyType

from xception.studies import (
    activation,
    fully_connected,
    inception_vs_xception,
    order,
    residuals,
    segments,
)
from xception.studies.study import Study

STUDIES: Mapping[str, Study] = MappingProxyType(
    {
        study.name: study
        for study in (
            inception_vs_xception.STUDY,
            residuals.STUDY,
            activation.STUDY,
            segments.STUDY,
            segments.AT_EQUAL_MACS,
            order.STUDY,
            fully_connected.STUDY,
        )
    }
)
