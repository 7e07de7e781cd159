"""Writing other libraries' files; what is in them is tested in tests/parity."""

import resource
from pathlib import Path

import pytest
import torch

from xception.errors import UserError
from xception.models.mobilenet_v1 import MobileNetV1
from xception.models.zoo import create_model
from xception.weights.convert import to_foreign
from xception.weights.foreign_files import write_foreign
from xception.weights.names.source import Source
from xception.weights.names.sources import SOURCES


def source_of(layout: str, model: str = "mobilenet_v1") -> Source:
    return next(one for one in SOURCES if (one.layout, one.model) == (layout, model))


def test_a_full_disk_is_said_in_one_line(tmp_path: Path):
    """Here a limit of a file's length, which ends a writing in its middle as a full disk does."""
    model = MobileNetV1(width=0.25, padding="symmetric", norm_epsilon=1e-5)
    source = source_of("timm")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        for name in ("a.pth", "a.safetensors"):
            with pytest.raises(UserError, match=r"cannot write .*: File too large"):
                write_foreign(tmp_path / name, model, source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("layout", "model", "option", "value", "theirs"),
    [
        ("keras", "xception", "activation", "relu", "none"),
        ("keras", "xception", "activation", "elu", "none"),
        ("keras", "xception", "stem_stride", 1, 2),
        ("keras", "xception", "output_stride", 8, 32),
        ("timm", "xception", "output_stride", 16, 32),
        ("keras", "mobilenet_v1", "output_stride", 8, 32),
        ("timm", "mobilenet_v1", "output_stride", 16, 32),
        ("keras", "inception_v3", "stem_stride", 1, 2),
        ("torchvision", "inception_v3", "stem_stride", 1, 2),
        ("timm", "xception41", "output_stride", 8, 32),
    ],
)
def test_what_no_shape_tells_is_refused_too(layout, model, option, value, theirs):
    source = source_of(layout, model)
    with torch.device("meta"):
        plain = create_model(model, **source.options)
        ours = create_model(model, **{**source.options, option: value})
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }
    with pytest.raises(UserError, match=rf" has {option} {theirs}, this model {value}: there"):
        to_foreign(ours, source)


def test_dropout_is_nothing_that_the_library_must_have():
    ours = MobileNetV1(width=0.25, dropout=0.5)
    assert to_foreign(ours, source_of("keras")).keys()
