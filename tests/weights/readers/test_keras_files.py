"""Files that Keras and h5py wrote, read without either."""

import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from foreign_files import read_all
from keras.src.utils.naming import to_snake_case

from xception.weights.readers.detect import open_foreign
from xception.weights.readers.stored import ForeignFileError

# Keras' own, when it turns torch's tensors into NumPy's.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy")

LAYERS = keras.layers


def small_model(**options) -> keras.Model:
    """Each kind of layer that the networks have; ten layers of one kind, so that numbers sort."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 3))
    x = LAYERS.Conv2D(4, 3, use_bias=False, name="block1_conv1", **options)(inputs)
    x = LAYERS.BatchNormalization(name="block1_conv1_bn", **options)(x)
    x = LAYERS.SeparableConv2D(5, 3, name="block2_sepconv1", **options)(x)
    x = LAYERS.DepthwiseConv2D(3, name="conv_dw_1", **options)(x)
    x = LAYERS.GlobalAveragePooling2D(name="avg_pool")(x)
    for _ in range(11):
        x = LAYERS.Dense(2, use_bias=False, **options)(x)
    return keras.Model(inputs, LAYERS.Dense(3, name="predictions", **options)(x), name="small")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Trained by one step, so that its optimizer has tensors too."""
    model = small_model()
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(4, 8, 8, 3)), rng.normal(size=(4, 3)), verbose="0")
    return model


def by_layer(model: keras.Model) -> dict[str, np.ndarray]:
    return {
        f"{layer.name}/{weight.name}": np.asarray(keras.ops.convert_to_numpy(weight.value))
        for layer in model.layers
        for weight in layer.weights
    }


def test_whole_model_in_h5(model, tmp_path):
    model.save(tmp_path / "whole.h5")
    found = read_all(tmp_path / "whole.h5")
    expected = by_layer(model)
    assert list(found)[: len(expected)] == list(expected)  # in the order of the layers
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, strict=True)
    others = list(found)[len(expected) :]
    assert len(others) == len(model.optimizer.variables)
    assert all(name.startswith("optimizer_weights/") for name in others)
    with open_foreign(tmp_path / "whole.h5") as foreign:
        assert foreign.kind == "keras_h5"
        assert foreign.meta["keras_version"] == keras.__version__
        assert foreign.meta["backend"] == "torch"
        config: Any = foreign.meta["config"]
        assert config["config"]["name"] == "small"


def keras_2(path: Path, layers: dict[str, dict[str, np.ndarray]], **options) -> None:
    """Weights as Keras 1 and 2 wrote them: hdf5_format.py's layout, by h5py."""
    with h5py.File(path, "w", **options) as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        file.attrs["keras_version"] = b"2.1.6"
        for layer, weights in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in weights]
            for name, values in weights.items():
                group[name] = values


@pytest.mark.parametrize("libver", ["earliest", "latest", "v108"])
def test_names_of_older_versions(libver, tmp_path):
    kernel, bias = np.ones((3, 3, 1, 2), "f4"), np.zeros(2, "f4")
    path = tmp_path / "old.h5"
    keras_2(
        path,
        {
            "input_1": {},
            "conv1": {"conv1/kernel:0": kernel, "conv1/bias:0": bias},
            "conv2d_1": {"conv2d_8/kernel:0": kernel},
            "block1": {"block1_W:0": kernel, "block1_b:0": bias},
            "inner": {"a/kernel:0": kernel, "b/kernel:0": kernel + 1},
        },
        libver=libver,
    )
    found = read_all(path)
    assert list(found) == [
        *("conv1/kernel", "conv1/bias", "conv2d_1/kernel", "block1/W", "block1/b"),
        *("inner/a/kernel", "inner/b/kernel"),
    ]
    assert (found["inner/b/kernel"] == 2).all()


def test_lists_of_names_that_are_spread_over_attributes(tmp_path):
    path = tmp_path / "many.h5"
    layers = [f"layer_with_a_long_name_{i:04d}" for i in range(60)]
    keras_2(path, {name: {f"{name}/kernel:0": np.full(2, 1.0)} for name in layers})
    with h5py.File(path, "a") as file:
        del file.attrs["layer_names"]
        for part in range(3):
            file.attrs[f"layer_names{part}"] = layers[20 * part : 20 * (part + 1)]
    assert list(read_all(path)) == [f"{name}/kernel" for name in layers]


@pytest.mark.parametrize("ending", [".weights.h5", ".keras"])
def test_keras_3(model, ending, tmp_path):
    path = tmp_path / f"small{ending}"
    (model.save_weights if ending == ".weights.h5" else model.save)(path)
    found = read_all(path)
    with open_foreign(path) as foreign:
        kind = foreign.kind
        meta: Any = foreign.meta
    assert kind == ("keras_weights_h5" if ending == ".weights.h5" else "keras_zip")
    expected = {}
    for layer in model.layers:
        kinds = [type(one) for one in model.layers]
        place = kinds[: model.layers.index(layer)].count(type(layer))
        name = to_snake_case(type(layer).__name__)
        for i, weight in enumerate(layer.weights):
            full = f"layers/{name}_{place}" if place else f"layers/{name}"
            expected[f"{full}/vars/{i}"] = keras.ops.convert_to_numpy(weight.value)
            assert meta["layer_names"][full] == layer.name
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, strict=True)
    names = list(found)
    assert names.index("layers/dense_2/vars/0") < names.index("layers/dense_10/vars/0")
    assert {name for name in names if name not in expected} == {
        f"optimizer/vars/{i}" for i in range(len(model.optimizer.variables))
    }
    if ending == ".keras":
        assert meta["metadata"]["keras_version"] == keras.__version__
        assert meta["config"]["class_name"] == "Functional"


def test_bfloat16_is_widened(tmp_path):
    model = small_model(dtype="bfloat16")
    model.save_weights(tmp_path / "narrow.weights.h5")
    found = read_all(tmp_path / "narrow.weights.h5")
    kernel = model.get_layer("block1_conv1").kernel.value
    expected = keras.ops.convert_to_numpy(keras.ops.cast(kernel, "float32"))
    np.testing.assert_array_equal(found["layers/conv2d/vars/0"], expected, strict=True)


def test_a_compressed_zip_file_is_unpacked(model, tmp_path):
    model.save(tmp_path / "a.keras")
    with (
        zipfile.ZipFile(tmp_path / "a.keras") as stored,
        zipfile.ZipFile(tmp_path / "b.keras", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in stored.namelist():
            packed.writestr(name, stored.read(name))
    ours, theirs = read_all(tmp_path / "b.keras"), read_all(tmp_path / "a.keras")
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        np.testing.assert_array_equal(values, theirs[name], strict=True)


TYPES = ["<f4", ">f4", "<f8", "<f2", "i1", "<i2", ">i4", "<i8", "u1", "<u2", "<u4", ">u8", "?"]


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_any_type_and_shape_that_h5py_writes(libver, tmp_path):
    path = tmp_path / "types.weights.h5"
    expected = {}
    with h5py.File(path, "w", libver=libver) as file:
        for i, dtype in enumerate(TYPES):
            for shape in ((), (3,), (2, 0), (2, 3, 1), (40, 50)):
                values = (np.arange(np.prod(shape, dtype=int)) % 5 - i % 2).reshape(shape)
                # In groups of a few: more than eight members want HDF5's dense form in "latest".
                name = f"layers/{i}/{len(shape)}{sum(shape)}/vars/0"
                expected[name] = values.astype(dtype)
                file[name] = expected[name]
    if libver == "latest":
        with pytest.raises(ForeignFileError, match="dense form"):
            read_all(path)
        return
    found = read_all(path)
    assert found.keys() == expected.keys()
    for name, values in found.items():
        native = expected[name].astype(expected[name].dtype.newbyteorder("="))
        np.testing.assert_array_equal(values, native, strict=True)


def test_values_in_the_header_and_groups_of_many(tmp_path):
    path = tmp_path / "many.weights.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/a/vars")
        for i in range(400):  # a tree of two levels in HDF5
            group[str(i)] = np.float32(i)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((4,))
        made = h5py.h5d.create(group.id, b"compact", h5py.h5t.IEEE_F32LE, space, plist)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(4, dtype="f4"))
    found = read_all(path)
    assert [found[f"layers/a/vars/{i}"] for i in range(400)] == list(range(400))
    assert list(found)[:400] == [f"layers/a/vars/{i}" for i in range(400)]
    assert found["layers/a/vars/compact"].tolist() == [0, 1, 2, 3]


def test_the_file_is_not_read_before_it_is_asked_for(tmp_path):
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        file["layers/a/vars/0"] = np.arange(100_000, dtype="f4")
    with open_foreign(path) as foreign:
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
        with pytest.raises(ForeignFileError, match="became shorter"):
            foreign.tensors["layers/a/vars/0"].read()


def test_json_of_a_model_may_be_long(tmp_path):
    path = tmp_path / "config.h5"
    keras_2(path, {"a": {"a/kernel:0": np.zeros(1)}})
    config = {"class_name": "Model", "layers": [{"name": f"layer {i} ü"} for i in range(20_000)]}
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = json.dumps(config, ensure_ascii=False)
    with open_foreign(path) as foreign:
        assert foreign.meta["config"] == config


def test_bfloat16_of_hdf5_itself(tmp_path):
    """A type of two bytes with the fields of bfloat16; HDF5 turns float32 into it."""
    path = tmp_path / "a.weights.h5"
    kind = h5py.h5t.IEEE_F16LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_ebias(127)
    values = np.array([1.0, -2.5, 3.0e38, 2.0**-126, 0.0], "f4")
    with h5py.File(path, "w") as file:
        group = file.create_group("layers/a/vars")
        made = h5py.h5d.create(group.id, b"0", kind, h5py.h5s.create_simple((5,)))
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
        expected = file["layers/a/vars/0"].astype("f4")[:]  # pyright: ignore
    np.testing.assert_array_equal(read_all(path)["layers/a/vars/0"], expected, strict=True)
    assert expected[:2].tolist() == [1.0, -2.5]


def test_the_older_way_to_say_where_values_are(tmp_path):
    """Version 2 of the layout message, as HDF5 before 1.6.3 wrote it (IV.A.2.i)."""
    path = tmp_path / "old.h5"
    keras_2(path, {"a": {"a/kernel:0": np.arange(100, dtype="f4")}})
    content = path.read_bytes()
    place = content.index(np.arange(100, dtype="<f4").tobytes())
    new = struct.pack("<BBQQ6x", 3, 1, place, 400)
    assert content.count(new) == 1
    path.write_bytes(content.replace(new, struct.pack("<BBB5xQI4x", 2, 1, 1, place, 100)))
    assert read_all(path)["a/kernel"].tolist() == list(range(100))
