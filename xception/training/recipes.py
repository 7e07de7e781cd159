"""Recipes: what differs from the defaults, as YAML with its source in the header."""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from xception.data.kind import Task
from xception.errors import UserError
from xception.models.deeplab_v3plus import DECIDED, DeepLabV3Plus
from xception.training.config import TrainConfig, override, parse, read_yaml
from xception.weights.card import Card
from xception.weights.convert import card_of
from xception.weights.hub import IMAGENET, fetch

OWN_OPTIONS = {"num_classes", "in_channels", "dropout"}  # decided by the photos and settings
FOLDER = Path(__file__).parent / "recipes"
# What a frozen backbone sees, whatever a recipe says: see `features`.
FROZEN: dict[str, Any] = {"augment": {"flip": True}, "progressive": None, "sampler": "shuffle"}


def list_recipes() -> list[str]:
    """The names that `configure` takes."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def configure(
    *,
    recipe: str | None = None,
    config: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    task: Task = "classification",
) -> TrainConfig:
    """The configuration of a recipe or a `config.yaml`, with single settings changed.

    Without either the recipe is `segment` for photos with masks; for others `finetune` where
    `settings` name weights to start from, else `scratch`. With weights, the network of a recipe and
    its preprocessing are those of their file; with a classifier's weights and photos with masks,
    they are the backbone's. The word "imagenet" stands for the published weights of the model.

    Args:
        recipe: one of `list_recipes()`.
        config: a complete configuration as a run leaves it.
        settings: dotted keys and values, e.g. `{"epochs": 3, "optimizer.learning_rate": 0.1}`.
        task: what the photos are for. With masks, `preprocess.size` follows from `joint.crop`.

    Raises:
        UserError: an unknown recipe, key or value, or both a recipe and a configuration.
    """
    settings = dict(settings or {})
    if recipe is not None and config is not None:
        raise UserError("give a recipe or a configuration file, not both")
    if config is not None:
        values = read_yaml(config)
    else:
        name = recipe or _default(task, settings)
        values = {"recipe": name, **read_yaml(_find(name))}
    weights = settings.get("weights") or (values.get("weights") if config is None else None)
    if isinstance(weights, str):
        if weights == IMAGENET and not Path(weights).exists():
            weights = str(fetch(_trained_part(values, settings, task)).path)
        elif (Path(weights) / "model.safetensors").is_file():  # a run folder
            weights = str(Path(weights) / "model.safetensors")
        settings["weights"] = weights
        if config is None:
            values = _network_of(card_of(Path(weights)), values, task)
    values = _without_strangers(values, settings)
    chosen = parse(override(values, settings), str(config) if config else "the settings")
    if task == "segmentation":
        if "preprocess.size" in settings:
            raise UserError("preprocess.size is that of joint.crop where photos have masks")
        size = {"preprocess.size": max(chosen.joint.crop)}
        chosen = parse(override(chosen.model_dump(), size), "joint.crop")
    _refuse_contradictions(chosen)
    if chosen.freeze == "backbone" and (config is None or "freeze" in settings):
        chosen = _for_features(chosen, settings)
    return chosen


def _default(task: Task, settings: Mapping[str, Any]) -> str:
    if task == "segmentation":
        return "segment"
    return "finetune" if settings.get("weights") else "scratch"


def _refuse_contradictions(chosen: TrainConfig) -> None:
    decided = OWN_OPTIONS & chosen.model_options.keys()
    if decided:
        raise UserError(f"model_options.{min(decided)} is decided by the photos and other settings")
    if chosen.weights is None and chosen.freeze == "backbone":
        raise UserError("freezing the backbone wants a trained one: name it with --weights FILE")
    if chosen.weights is None and chosen.batch_statistics == "frozen":
        raise UserError(
            "frozen batch statistics are those of a trained network: name it with --weights FILE"
        )


def _for_features(chosen: TrainConfig, settings: Mapping[str, Any]) -> TrainConfig:
    """The configuration that says what is done where features are computed once.

    Raises:
        UserError: `settings` ask for something that could not be done.
    """
    frozen = parse(override(chosen.model_dump(), FROZEN), "the settings")
    for key in settings:
        name = key.split(".")[0]
        if name in FROZEN and getattr(chosen, name) != getattr(frozen, name):
            raise UserError(
                f"{key} would have no effect: with a frozen backbone every photo is seen once, as "
                "it is and mirrored, and its features are kept"
            )
    return frozen


def _without_strangers(values: dict[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe without options of a network, or a backbone, that is not wanted."""
    model = values.get("model")
    if model is not None and settings.get("model", model) != model:
        return {**values, "model_options": {}}
    options = values.get("model_options", {})
    backbone = options.get("backbone")
    if backbone is not None and settings.get("model_options.backbone", backbone) != backbone:
        return {**values, "model_options": {**options, "backbone_options": {}}}
    return values


def _trained_part(values: Mapping[str, Any], settings: Mapping[str, Any], task: Task) -> str:
    """The name of the network of which there may be published weights."""
    if task == "segmentation":
        default = inspect.signature(DeepLabV3Plus).parameters["backbone"].default
        options = override(dict(values), dict(settings)).get("model_options", {})
        return options.get("backbone", default)
    default = TrainConfig.model_fields["model"].default
    return settings.get("model") or values.get("model", default)


def _network_of(card: Card, values: dict[str, Any], task: Task) -> dict[str, Any]:
    """The values of a recipe, with the network of a card in the place of the recipe's own."""
    options = dict(card.architecture.options)
    preprocess = card.preprocess.model_dump()
    if task == "classification":
        options = {key: options[key] for key in options if key not in OWN_OPTIONS}
        return {
            **values,
            "model": card.architecture.name,
            "model_options": options,
            "preprocess": preprocess,
        }
    own = values.get("model_options", {})
    if card.task == "segmentation":
        name = card.architecture.name
        options = {key: options[key] for key in options if key not in OWN_OPTIONS}
        options |= {key: own[key] for key in own.keys() & {"output_stride"}}  # the weights fit any
    else:
        name = values.get("model", "deeplab_v3plus")
        backbone = {key: options[key] for key in options if key not in DECIDED}
        options = {**own, "backbone": card.architecture.name, "backbone_options": backbone}
    colours = {key: preprocess[key] for key in ("channels", "mean", "std")}
    preprocess = {**values.get("preprocess", {}), **colours}
    return {**values, "model": name, "model_options": options, "preprocess": preprocess}


def _find(name: str) -> Path:
    known = list_recipes()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise UserError(f"no recipe is called {name!r}; {hint}")
    return FOLDER / f"{name}.yaml"
