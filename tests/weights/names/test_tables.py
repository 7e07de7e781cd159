"""Every table, both ways, on files that hold random numbers under the library's own names."""

from pathlib import Path

import numpy as np
import pytest
import torch

from xception.models.network import Network
from xception.models.zoo import create_model
from xception.weights.convert import lazy_weights, to_foreign
from xception.weights.identify import identify
from xception.weights.names.source import Source
from xception.weights.names.sources import SOURCES
from xception.weights.readers.stored import Foreign, StoredTensor

PATH = Path("somewhere")


def stored(name: str, array: np.ndarray) -> StoredTensor:
    return StoredTensor(name, array.shape, array.dtype.name, lambda: array)


def foreign(kind, arrays: dict[str, np.ndarray]) -> Foreign:
    return Foreign(kind, {name: stored(name, array) for name, array in arrays.items()}, {})


def numbered(source: Source) -> Network:
    """A network whose every weight is another number, without the time of a random start."""
    with torch.device("meta"):
        model = create_model(source.model, **source.options, num_classes=5)
    state, count = {}, 0
    for name, value in model.state_dict().items():
        number = torch.arange(count, count + value.numel()).reshape(value.shape)
        state[name] = number.to(value.dtype)
        count += value.numel()
    model.load_state_dict(state, assign=True)
    return model


@pytest.mark.parametrize("source", SOURCES, ids=lambda one: f"{one.kinds[0]}-{one.title}")
def test_there_and_back_is_the_same_bytes(source):
    model = numbered(source)
    arrays = to_foreign(model, source)
    for kind in source.kinds:
        file = foreign(kind, arrays)
        fit = identify(file, PATH)
        assert fit.source is source
        assert not fit.left_out
        assert not fit.headless
        weights = {k: v.make() for k, v in lazy_weights(file, fit, PATH).items()}
        with torch.device("meta"):
            again = create_model(source.model, **fit.options)
        again.load_state_dict(weights, assign=True)
        back = to_foreign(again, source)
        assert back.keys() == arrays.keys()
        for name, array in arrays.items():  # all are floats but the counters, and none is NaN
            assert back[name].dtype == array.dtype, name
            assert np.array_equal(back[name], array), name
        for name, value in model.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                assert torch.equal(weights[name], value), name


def test_deeplab_with_regular_convolutions_under_the_names_of_slim_repeat():
    source = next(one for one in SOURCES if one.network == "DeepLab V3+ over xception_65")
    with torch.device("meta"):
        ours = create_model("deeplab_v3plus", **source.options, separable=False).state_dict()
    arrays = {
        row.theirs: np.broadcast_to(np.float32(0), row.their_shape(tuple(ours[row.ours].shape)))
        for row in source.rows(ours)
    }
    assert arrays["decoder/decoder_conv0/decoder_conv0_1/weights"].shape == (3, 3, 304, 256)
    assert arrays["decoder/decoder_conv0/decoder_conv0_2/weights"].shape == (3, 3, 256, 256)
    assert arrays["aspp1/weights"].shape == (3, 3, 2048, 256)
    fit = identify(foreign("tensorflow", arrays), PATH)
    assert (fit.source, fit.options["separable"]) == (source, False)
