"""Regular convolutions: which modules are such, and how another module takes the place of one."""

from torch import nn

from xception.layers.exchange import inseparable


def refusal(module: nn.Module) -> str | None:
    """Why a module is no regular convolution to be taken apart; None if it is one.

    Regular means a window of more than one pixel over all channels.
    """
    reason = inseparable(module)
    if reason is not None or not isinstance(module, nn.Conv2d):
        return reason
    if module.kernel_size == (1, 1):
        return "1×1: it is pointwise already"
    if module.groups > 1:
        apart = module.groups == module.in_channels
        return "it is depthwise already" if apart else f"it keeps {module.groups} groups apart"
    if module._forward_pre_hooks or module._forward_hooks:
        return "it has hooks, as a weight that is made anew at each pass has"
    return None


def replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` into all places of the network where `old` stands.

    Raises:
        ValueError: it stands nowhere.
    """
    places = [
        (parent, name)
        for parent in model.modules()
        for name, child in parent._modules.items()
        if child is old
    ]
    if not places:
        raise ValueError(f"the network has no such {type(old).__name__}")
    for parent, name in places:
        setattr(parent, name, new)
