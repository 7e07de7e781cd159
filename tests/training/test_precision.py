import pytest
import torch

from xception.errors import UserError
from xception.training.precision import autocast


def test_bfloat16_is_refused_where_it_is_emulated():
    if torch.cpu._is_avx512_bf16_supported():
        assert autocast("bfloat16", torch.device("cpu"))._enabled
    else:
        with pytest.raises(UserError, match="slower"):
            autocast("bfloat16", torch.device("cpu"))
    assert not autocast("auto", torch.device("cpu"))._enabled
