import pytest
import yaml

from xception.errors import UserError
from xception.training.config import override, parse, read_config, read_yaml, to_yaml
from xception.training.recipes import FOLDER, configure, list_recipes

from .conftest import tiny


def test_a_configuration_written_and_read_back_is_the_same(tmp_path):
    config = configure(recipe="xception-imagenet", settings={"seed": 7, "augment.mixup": 0.2})
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert read_config(path) == config
    assert configure(config=path) == config


def test_the_written_configuration_is_complete():
    values = yaml.safe_load(to_yaml(configure(recipe="scratch")))
    assert values["optimizer"]["name"] == "adamw"
    assert set(values) >= {"model", "preprocess", "augment", "seed", "checkpoint_minutes"}


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_valid_and_names_its_source(name):
    parse(read_yaml(FOLDER / f"{name}.yaml"), name)
    header = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").split("model:")[0]
    assert header.startswith("#")
    assert "arXiv" in header or "RESULTS.md" in header


def test_the_recipes_of_the_paper_hold_its_numbers():  # Chollet 2017, sections 4.2 and 4.3
    imagenet = configure(recipe="xception-imagenet")
    assert imagenet.optimizer.name == "sgd"
    assert imagenet.optimizer.momentum == 0.9
    assert imagenet.optimizer.learning_rate == 0.045
    assert imagenet.optimizer.weight_decay == 1e-5
    assert (imagenet.schedule.rate, imagenet.schedule.every_epochs) == (0.94, 2)
    assert imagenet.dropout == 0.5
    assert imagenet.average_decay is not None
    jft = configure(recipe="xception-jft")
    assert (jft.optimizer.name, jft.optimizer.momentum) == ("rmsprop", 0.9)
    assert jft.optimizer.learning_rate == 0.001
    assert (jft.schedule.rate, jft.schedule.every_samples) == (0.9, 3_000_000)
    assert jft.dropout == 0


@pytest.mark.parametrize(
    ("progressive", "expected"),
    [
        ({"start": 64}, (64, 64, 64, 64, 64, 96, 96, 96, 96, 96)),
        ({"start": 64, "step": 16, "until": 0.6}, (64, 64, 64, 80, 80, 80, 96, 96, 96, 96)),
        ({"start": 96}, (96,) * 10),
        ({"start": 200, "until": 1}, (96,) * 10),  # never above the full size
        ({"start": 95, "step": 1, "until": 0}, (96,) * 10),
        ({"start": 95, "step": 1, "until": 1}, (95,) * 10),
        ({"start": 32, "step": 1, "until": 0.1}, (32, *(96,) * 9)),  # more sizes than epochs
    ],
)
def test_photos_grow_by_stages(progressive, expected):
    config = tiny(epochs=10, preprocess={"size": 96}, progressive=progressive)
    assert config.sizes == expected


def test_the_recipes_of_deeplab_hold_its_numbers():  # Chen et al. 2018, §4, and its code
    first = configure(recipe="deeplab-voc", task="segmentation")
    assert first.model_options == {"backbone": "xception65", "output_stride": 16}
    assert (first.optimizer.name, first.optimizer.momentum) == ("sgd", 0.9)
    assert first.optimizer.learning_rate == 0.007
    assert first.optimizer.weight_decay == 4e-5
    assert not first.optimizer.decay_depthwise
    assert (first.schedule.name, first.schedule.power) == ("poly", 0.9)
    assert first.joint.crop == (513, 513)
    assert (first.joint.scale, first.joint.scale_step) == ((0.5, 2.0), 0.25)
    assert first.joint.flip
    assert first.batch_statistics == "batch"
    assert first.batch_norm_momentum == 0.0003
    steps = first.epochs * (10_582 // first.batch_size)  # of "trainaug"
    assert abs(steps - 30_000) < 10_582 // first.batch_size
    second = parse(read_yaml(FOLDER / "deeplab-voc-os8.yaml"), "os8")
    assert second.model_options["output_stride"] == 8
    assert second.batch_statistics == "frozen"
    assert second.optimizer == first.optimizer.model_copy(update={"learning_rate": 0.001})
    assert abs(second.epochs * (2_913 // second.batch_size) - 30_000) < 2_913 // second.batch_size


def test_masks_have_a_recipe_of_their_own():
    assert configure(task="segmentation").recipe == "segment"
    assert configure().recipe == "scratch"


def test_the_crop_decides_the_size():
    config = configure(settings={"joint.crop": [65, 97]}, task="segmentation")
    assert (config.joint.crop, config.preprocess.size) == ((65, 97), 97)
    with pytest.raises(UserError, match=r"joint\.crop"):
        configure(settings={"preprocess.size": 65}, task="segmentation")


def test_options_of_a_recipe_s_backbone_are_not_given_to_another():
    settings = {"model_options.backbone": "xception41"}
    config = configure(settings=settings, task="segmentation")
    assert config.model_options["backbone_options"] == {}
    assert config.model_options["encoder_channels"] == 128
    wider = {"model_options.backbone_options.width": 0.75}
    changed = configure(settings=wider, task="segmentation").model_options["backbone_options"]
    same = configure(task="segmentation").model_options["backbone_options"]
    assert changed == {**same, "width": 0.75}


def test_frozen_statistics_of_random_weights_are_refused():
    with pytest.raises(UserError, match="--weights FILE"):
        configure(recipe="deeplab-voc-os8", task="segmentation")


def test_published_weights_are_those_of_the_backbone(monkeypatch):
    asked = []

    def fetch(model):
        asked.append(model)
        raise UserError("no network")

    monkeypatch.setattr("xception.training.recipes.fetch", fetch)
    wanted = {"weights": "imagenet"}
    for settings in (wanted, {**wanted, "model_options.backbone": "xception71"}):
        with pytest.raises(UserError, match="no network"):
            configure(settings=settings, task="segmentation", recipe="deeplab-voc")
    for settings in (wanted, {**wanted, "model": "xception41"}):
        with pytest.raises(UserError, match="no network"):
            configure(settings=settings)
    assert asked == ["xception65", "xception71", "xception", "xception41"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pixel_loss.cross_entropy": 0}, "cannot both be 0"),
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"optimizer.learning_rat": 0.1}, "did you mean 'learning_rate'"),
        ({"epochs": "many"}, "epochs"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"optimizer.learning_rate": float("nan")}, "learning_rate"),
        ({"sampler": "balance"}, "sampler"),
        ({"epochs.x": 3}, "single value"),
        ({"weights": 3}, "weights"),
        ({"optimizer.betas": [1, 1]}, "betas"),
        ({"schedule.warmup_epochs": float("inf")}, "warmup_epochs"),
        ({"augment.pad_crop": 10**12}, "pad_crop"),
        ({"model_options.num_classes": 7}, "decided by the photos"),
        ({"preprocess.size": -1}, "preprocess.size"),
    ],
)
def test_a_wrong_setting_is_named(settings, words):
    with pytest.raises(UserError, match=r"\S") as caught:
        configure(settings=settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_of_a_recipe_s_network_are_not_given_to_another():
    scratch = configure()
    assert scratch.model_options["width"] == 0.25
    other = configure(settings={"model": "mobilenet_v1", "model_options.width": 0.5})
    assert (other.model, other.model_options) == ("mobilenet_v1", {"width": 0.5})
    assert configure(settings={"model": "xception"}) == scratch


def test_an_unknown_recipe_gets_the_closest_name():
    with pytest.raises(UserError, match="did you mean 'scratch'"):
        configure(recipe="scrach")


def test_freezing_random_weights_is_refused():
    with pytest.raises(UserError, match="--weights FILE"):
        configure(settings={"freeze": "backbone"})


def with_weights(tmp_path, **more):
    """A configuration that names a file with weights; it is not opened before a training begins."""
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(tiny(weights="x.safetensors", **more)), encoding="utf-8")
    return path


def test_a_run_folder_stands_for_its_weights_beside_a_configuration_too(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "model.safetensors").write_bytes(b"")
    chosen = configure(config=with_weights(tmp_path), settings={"weights": str(run)})
    assert chosen.weights == str(run / "model.safetensors")


def test_a_frozen_backbone_says_what_its_photos_go_through(tmp_path):
    path = with_weights(tmp_path, augment={"flip": True, "mixup": 0.2}, sampler="balanced")
    frozen = configure(config=path, settings={"freeze": "backbone"})
    assert frozen.augment.model_dump(exclude_defaults=True) == {"flip": True}
    assert (frozen.sampler, frozen.progressive) == ("shuffle", None)
    # A run that was begun with these words keeps them: it is to be resumed.
    path.write_text(to_yaml(frozen.model_copy(update={"sampler": "balanced"})), encoding="utf-8")
    assert configure(config=path).sampler == "balanced"


@pytest.mark.parametrize(
    "asked",
    [
        {"sampler": "balanced"},
        {"augment.mixup": 0.2},
        {"augment": {"flip": False}},
        {"progressive.start": 16},
    ],
)
def test_what_a_frozen_backbone_cannot_do_is_refused(tmp_path, asked):
    with pytest.raises(UserError, match=f"{next(iter(asked))} would have no effect"):
        configure(config=with_weights(tmp_path), settings={"freeze": "backbone", **asked})


def test_what_a_frozen_backbone_does_anyway_may_be_asked_for(tmp_path):
    asked = {"sampler": "shuffle", "augment": {"flip": True}}
    frozen = configure(config=with_weights(tmp_path), settings={"freeze": "backbone", **asked})
    assert (frozen.sampler, frozen.augment.flip) == ("shuffle", True)


def test_a_recipe_and_a_configuration_together_are_refused(tmp_path):
    with pytest.raises(UserError, match="not both"):
        configure(recipe="scratch", config=tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not YAML"),
        ("- 1", "key: value"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
        ("epochs: 2\n", "'preprocess' is missing"),
        ("preprocess: {size: 32}\nmodle: xception\n", "did you mean 'model'"),
    ],
)
def test_a_wrong_configuration_file_is_refused_in_a_line(tmp_path, text, words):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_config(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_configuration_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*none\.yaml"):
        read_config(tmp_path / "none.yaml")


def test_override_leaves_what_it_was_given_alone():
    values = {"optimizer": {"name": "sgd"}, "epochs": 3}
    changed = override(values, {"optimizer.momentum": 0.5, "epochs": 4})
    assert changed == {"optimizer": {"name": "sgd", "momentum": 0.5}, "epochs": 4}
    assert values == {"optimizer": {"name": "sgd"}, "epochs": 3}
    deeper = override({"model_options": {"a": {"b": 1}}}, {"model_options.a.c": 2})
    assert deeper == {"model_options": {"a": {"b": 1, "c": 2}}}
    with pytest.raises(UserError, match=r"'model_options.a' is a single value"):
        override({"model_options": {"a": 1}}, {"model_options.a.c": 2})
    assert parse({"preprocess": {"size": 8}, **changed}, "here").optimizer.momentum == 0.5
