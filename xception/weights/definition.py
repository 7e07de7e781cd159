"""Whether another library's definition of a network can be that of a model of ours."""

from collections.abc import Collection, Mapping
from typing import Any

from xception.errors import UserError
from xception.models.network import Network
from xception.weights.identify import network_options, network_shapes, some
from xception.weights.names.source import Source

MAY_DIFFER = frozenset({"num_classes", "in_channels", "dropout", "width", "multiple"})
"""Options that may be another's: the shapes are compared for them, or they change no answer."""


def check_definition(model: Network, source: Source) -> None:
    """Judge whether the library's network would answer as the model does.

    Raises:
        UserError: it has another option, or tensors of another shape.
    """
    _check_options(model, source, source.options)
    open_options = {"num_classes", "in_channels", *source.present}
    open_options |= {"width"} if source.width_of is not None else set()
    options = {key: model.options[key] for key in open_options if key in model.options}
    options = {**source.options, **options}
    here = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    there = network_shapes(source.model, options)
    if here != there:
        differ = [name for name in here | there if here.get(name) != there.get(name)]
        raise UserError(f"this model is not {source.title}; it differs at {some(differ)}")
    # Strides and activations leave the shapes as they are.
    _check_options(model, source, network_options(source.model, options), MAY_DIFFER)


def _check_options(
    model: Network,
    source: Source,
    theirs: Mapping[str, Any],
    but: Collection[str] = (),
) -> None:
    for option, value in theirs.items():
        ours = model.options.get(option, value)
        if option not in but and ours != value:
            raise UserError(
                f"{source.title} has {option} {value}, this model {ours}: "
                "there it would answer otherwise"
            )
