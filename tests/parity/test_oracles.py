import importlib.util

import oracles
import pytest
import torch


def test_the_other_libraries_build_their_networks():
    with torch.device("meta"):
        theirs = oracles.torchvision_models().inception_v3(weights=None, init_weights=False)
        assert oracles.timm().create_model("mobilenetv1_100").num_classes == 1000
    # torchvision's documentation: 27,161,264 with the auxiliary tower.
    assert sum(p.numel() for p in theirs.parameters()) == 27_161_264


@pytest.mark.parametrize("oracle", [oracles.timm, oracles.torchvision_models])
def test_a_missing_library_is_said_aloud(monkeypatch, oracle):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(pytest.skip.Exception, match=r"ORACLE IS MISSING.*--no-deps (timm|torchv)"):
        oracle()
