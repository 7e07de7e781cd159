"""Where a model looked in a photo, as a picture (Grad-CAM)."""

import torch
from PIL import Image

from xception.data.images import decode
from xception.deploy.runtime import Predictor
from xception.evaluation.explain import grad_cam, overlay

SHOWN_SIDE = 480  # pixels; small networks see less than a person wants to look at


def explain(predictor: Predictor, data: bytes, name: str, label: str) -> Image.Image:
    """The part of a photo that the model sees, with what speaks for a class laid over it.

    Args:
        predictor: the model.
        data: the bytes of the photo's file.
        name: says in errors which file is wrong.
        label: the class to explain.

    Raises:
        ImageError: the file cannot be read.
        ValueError: the model has no such class.
    """
    preprocess = predictor.card.preprocess
    x = preprocess.tensor(data, name).to(predictor.device)
    (cam,) = grad_cam(predictor.model, x, torch.tensor([predictor.classes.index(label)]))
    sharp = preprocess.model_copy(update={"size": max(SHOWN_SIDE, preprocess.size)})
    return overlay(sharp.fit(decode(data, name, min_side=sharp.min_side)), cam)
