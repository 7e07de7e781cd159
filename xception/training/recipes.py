"""Recipes: what differs from the defaults, as YAML with its source in the header."""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from xception.errors import UserError
from xception.training.config import TrainConfig, override, parse, read_yaml
from xception.weights.convert import card_of
from xception.weights.hub import IMAGENET, fetch

OWN_OPTIONS = {"num_classes", "in_channels", "dropout"}  # decided by the photos and settings
FOLDER = Path(__file__).parent / "recipes"


def list_recipes() -> list[str]:
    """The names that `configure` takes."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def configure(
    *,
    recipe: str | None = None,
    config: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """The configuration of a recipe or a `config.yaml`, with single settings changed.

    Without either the recipe is `finetune` where `settings` name weights to start from, else
    `scratch`. With weights, the network and its preprocessing are those of their file;
    the word "imagenet" stands for the published weights of the model.

    Args:
        recipe: one of `list_recipes()`.
        config: a complete configuration as a run leaves it.
        settings: dotted keys and values, e.g. `{"epochs": 3, "optimizer.learning_rate": 0.1}`.

    Raises:
        UserError: an unknown recipe, key or value, or both a recipe and a configuration.
    """
    settings = dict(settings or {})
    if recipe is not None and config is not None:
        raise UserError("give a recipe or a configuration file, not both")
    if config is not None:
        values = read_yaml(config)
    else:
        name = recipe or ("finetune" if settings.get("weights") else "scratch")
        values = {"recipe": name, **read_yaml(_find(name))}
    weights = settings.get("weights") or values.get("weights")
    if isinstance(weights, str) and config is None:
        if weights == IMAGENET and not Path(weights).exists():
            model = settings.get("model") or values.get(
                "model", TrainConfig.model_fields["model"].default
            )
            settings["weights"] = weights = str(fetch(model).path)
        elif (Path(weights) / "model.safetensors").is_file():  # a run folder
            settings["weights"] = weights = str(Path(weights) / "model.safetensors")
        values = _network_of(Path(weights), values)
    if "model" in values and settings.get("model", values["model"]) != values["model"]:
        values = {**values, "model_options": {}}  # those of the other network mean nothing here
    chosen = parse(override(values, settings), str(config) if config else "the settings")
    decided = OWN_OPTIONS & chosen.model_options.keys()
    if decided:
        raise UserError(f"model_options.{min(decided)} is decided by the photos and other settings")
    if chosen.freeze == "backbone" and chosen.weights is None:
        raise UserError("freezing the backbone wants a trained one: name it with --weights FILE")
    return chosen


def _find(name: str) -> Path:
    known = list_recipes()
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise UserError(f"no recipe is called {name!r}; {hint}")
    return FOLDER / f"{name}.yaml"


def _network_of(weights: Path, values: dict[str, Any]) -> dict[str, Any]:
    card = card_of(weights)
    options = {k: v for k, v in card.architecture.options.items() if k not in OWN_OPTIONS}
    return {
        **values,
        "model": card.architecture.name,
        "model_options": options,
        "preprocess": card.preprocess.model_dump(),
    }
