"""Inception V3 as TF-slim computes it, against ours with the same variables.

The graph is slim's own (`tf_slim.nets.inception_v3`), with random variables, its auxiliary tower,
1001 classes and moving averages. TensorFlow stays out of our environment, so this file runs twice:

    python -m venv tf && tf/bin/pip install tensorflow-cpu==2.21.0 tf-keras==2.21.0 tf-slim==1.1.0
    tf/bin/python benchmarks/tensorflow_inception.py make DIR
    .venv/bin/python benchmarks/tensorflow_inception.py compare DIR

`make` writes DIR/model.ckpt.* (220 MB) and DIR/answers.npz; `compare` reads the checkpoint as
`xception convert` does and fails unless all logits agree within 1e-3.
"""

import argparse
import importlib
import sys
from pathlib import Path

import numpy as np

CLASSES = 1001
# The first fills the tower. Slim averages over 8x8 places at most, so nothing is larger.
SIZES = ((299, 299), (224, 150), (75, 98))
BOUND = 1e-3


def make(folder: Path) -> None:
    """Random variables, the answers to random images, and the checkpoint."""
    import tensorflow

    find_layers()
    import tf_slim
    from tf_slim.nets import inception_v3

    tf = tensorflow.compat.v1
    tf.disable_eager_execution()
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)

    def network(images, *, training: bool = False):
        """The logits, and those of the tower where 5x5 places are left to it."""
        # With a decay of 0 the moving statistics are those of the last batch.
        with tf_slim.arg_scope(inception_v3.inception_v3_arg_scope(batch_norm_decay=0.0)):
            logits, points = inception_v3.inception_v3(
                tf.constant(images),
                CLASSES,
                is_training=training,
                reuse=tf.AUTO_REUSE,
                create_aux_logits=images.shape[1:3] == SIZES[0],
            )
        return [logits, points["AuxLogits"]] if "AuxLogits" in points else [logits]

    def batch(count: int, height: int, width: int) -> np.ndarray:
        return random.uniform(-1, 1, (count, height, width, 3)).astype(np.float32)

    with tf.Session() as session:
        network(batch(4, *SIZES[0]), training=True)
        session.run(tf.global_variables_initializer())
        variables = tf.global_variables()
        for variable in variables:
            shape = variable.shape.as_list()
            if variable.op.name.endswith("weights"):
                values = random.normal(0, (2 / np.prod(shape[:3])) ** 0.5, shape)
                variable.load(values.astype(np.float32), session)
            elif variable.op.name.endswith(("beta", "biases")):
                variable.load(random.normal(0, 0.3, shape).astype(np.float32), session)
        session.run(tf.get_collection(tf.GraphKeys.UPDATE_OPS))
        answers = {}
        for i, size in enumerate(SIZES):
            answers[f"images{i}"] = images = batch(2, *size)
            found = session.run(network(images))
            for name, values in zip(("logits", "tower"), found, strict=False):
                answers[f"{name}{i}"] = values
        save(tf, session, variables, folder)
    np.savez(folder / "answers.npz", **answers)
    print(f"{folder}: {len(variables)} variables and their averages, {len(SIZES)} sizes")


def find_layers() -> None:
    """TensorFlow's old layers, which slim uses, where TensorFlow looks for them."""
    for name in ("", ".base", ".convolutional", ".core", ".normalization", ".pooling"):
        module = importlib.import_module(f"tf_keras.src.legacy_tf_layers{name}")
        sys.modules[f"tf_keras.legacy_tf_layers{name}"] = module


def save(tf, session, variables, folder: Path) -> None:
    """The checkpoint: what has been computed with as averages, beside plain variables of noise."""
    values = session.run(variables)
    averages = [
        tf.Variable(value, name=f"{variable.op.name}/ExponentialMovingAverage")
        for variable, value in zip(variables, values, strict=True)
    ]
    step = tf.Variable(np.int64(30_000), name="global_step")
    slots = [
        tf.Variable(np.ones(variable.shape, np.float32), name=f"{variable.op.name}/RMSProp")
        for variable in variables[:3]
    ]
    session.run([one.initializer for one in (*averages, *slots, step)])
    for variable, value in zip(variables, values, strict=True):
        variable.load(value + 1, session)
    tf.train.Saver().save(session, str(folder / "model.ckpt"), write_meta_graph=False)


def compare(folder: Path) -> bool:
    """Whether ours gives the same logits from the same checkpoint."""
    import torch

    from xception.models.inception_v3 import InceptionV3
    from xception.weights.convert import read_foreign

    converted = read_foreign(folder / "model.ckpt")
    model = converted.model
    assert isinstance(model, InceptionV3)
    print(f"{converted.source.title}; left out: {len(converted.left_out)} tensors")
    worst = 0.0
    with np.load(folder / "answers.npz") as answers:
        for i in range(len(SIZES)):
            images = torch.from_numpy(answers[f"images{i}"]).permute(0, 3, 1, 2)
            with torch.no_grad():
                found = model.forward_both(images) if i == 0 else (model(images),)
            for name, logits in zip(("logits", "tower"), found, strict=False):
                expected = torch.from_numpy(answers[f"{name}{i}"])
                difference = (logits - expected).abs().max().item()
                worst = max(worst, difference)
                print(
                    f"{images.shape[2]}x{images.shape[3]}, {name}: largest difference "
                    f"{difference:.1e}, standard deviation {expected.std():.2f}"
                )
    print(f"{worst:.1e}, at most {BOUND} is right")
    return worst <= BOUND


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("make", "compare"))
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    if given.part == "make":
        make(given.folder)
        return 0
    return 0 if compare(given.folder) else 1


if __name__ == "__main__":
    sys.exit(main())
