"""The classes of ILSVRC-2012 ("ImageNet") in the order of everybody's logits: that of their ids."""

from pathlib import Path

FILE = Path(__file__).parent / "classes.txt"
BACKGROUND = "background"
"""The first of 1001 classes in TensorFlow's networks: no class, and never seen in training."""


def imagenet_classes(count: int = 1000) -> tuple[str, ...]:
    """Their names, one word of WordNet each; two words that name two classes carry the id.

    Raises:
        ValueError: `count` is neither 1000 nor, with the background, 1001.
    """
    names = tuple(FILE.read_text("utf-8").splitlines())
    if count == len(names):
        return names
    if count == len(names) + 1:
        return (BACKGROUND, *names)
    raise ValueError(f"ImageNet has {len(names)} classes, not {count}")
