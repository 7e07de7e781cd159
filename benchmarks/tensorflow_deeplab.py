"""DeepLab V3+ as TensorFlow computes it, against ours with the same variables.

The graph is that of the released networks (arXiv:1802.02611, and the variable names of their
checkpoints), written here in plain TensorFlow 1 operators with random variables. TensorFlow stays
out of our environment, so this file runs twice:

    python -m venv tf && tf/bin/pip install tensorflow-cpu==2.21.0
    tf/bin/python benchmarks/tensorflow_deeplab.py make DIR --layers 65
    .venv/bin/python benchmarks/tensorflow_deeplab.py compare DIR

`make` writes DIR/model.ckpt.* (160 MB) and DIR/answers.npz; `compare` reads the checkpoint as
`xception convert` does and fails unless all logits agree within 1e-3.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

CLASSES = 21
SIZES = ((129, 129), (130, 97), (97, 160), (33, 50))
RATES = (6, 12, 18)  # at output stride 16
MIDDLE = {41: 8, 65: 16, 71: 16}
ENTRY = {  # depth of the three convolutions, stride
    41: ((128, 2), (256, 2), (728, 2)),
    65: ((128, 2), (256, 2), (728, 2)),
    71: ((128, 2), (256, 1), (256, 2), (728, 1), (728, 2)),
}
LOW_LEVEL = {41: 2, 65: 2, 71: 3}  # the block of the entry flow
BOUND = 1e-3


class Graph:
    """The released graph. With `calibrating`, normalisations use the statistics of the batch, and
    `moments` keeps them by the scope of the normalisation."""

    def __init__(self, tf, layers: int, output_stride: int, *, calibrating: bool):
        self.tf = tf.compat.v1
        self.layers = layers
        self.output_stride = output_stride
        self.calibrating = calibrating
        self.moments = {}
        self.random = np.random.default_rng(0)

    def variable(self, name, shape, values, *, trainable=True):
        tf = self.tf
        start = tf.constant_initializer(values.astype(np.float32))
        return tf.get_variable(name, shape, tf.float32, start, trainable=trainable)

    def kernel(self, name, shape, fan_in):
        return self.variable(name, shape, self.random.normal(0, (2 / fan_in) ** 0.5, shape))

    def norm(self, x, epsilon):
        tf = self.tf
        channels = x.shape[-1]
        with tf.variable_scope("BatchNorm"):
            gamma = self.variable("gamma", [channels], self.random.uniform(0.5, 1.5, channels))
            beta = self.variable("beta", [channels], self.random.normal(0, 0.3, channels))
            zeros, ones = np.zeros(channels), np.ones(channels)
            mean = self.variable("moving_mean", [channels], zeros, trainable=False)
            variance = self.variable("moving_variance", [channels], ones, trainable=False)
            if self.calibrating:
                now = tf.nn.moments(x, [0, 1, 2])
                self.moments[mean.name.split("/moving_mean")[0]] = (mean, variance, *now)
                mean, variance = now
            return tf.nn.batch_normalization(x, mean, variance, beta, gamma, epsilon)

    def conv(self, x, scope, depth, size=1, stride=1, epsilon=1e-3, relu=True):
        """A regular convolution; with a stride, a window of three is padded by hand."""
        tf = self.tf
        with tf.variable_scope(scope):
            before = int(x.shape[-1])
            kernel = self.kernel("weights", [size, size, before, depth], size * size * before)
            padding = "SAME"
            if stride > 1 and size > 1:
                x, padding = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), "VALID"
            x = self.norm(tf.nn.conv2d(x, kernel, [1, stride, stride, 1], padding), epsilon)
            return tf.nn.relu(x) if relu else x

    def depthwise(self, x, scope, stride, rate, epsilon, relu):
        tf = self.tf
        with tf.variable_scope(scope):
            kernel = self.kernel("depthwise_weights", [3, 3, int(x.shape[-1]), 1], 9)
            padding = "SAME"
            if stride > 1:
                x, padding = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]]), "VALID"
            strides = [1, stride, stride, 1]
            x = tf.nn.depthwise_conv2d(x, kernel, strides, padding, rate=[rate, rate])
            x = self.norm(x, epsilon)
            return tf.nn.relu(x) if relu else x

    def separable(self, x, scope, depth, stride=1, rate=1, epsilon=1e-3, relu=True):
        x = self.depthwise(x, f"{scope}_depthwise", stride, rate, epsilon, relu)
        return self.conv(x, f"{scope}_pointwise", depth, epsilon=epsilon, relu=relu)

    def module(self, x, scope, depths, skip, stride, rate, *, relu_inside=False):
        """Three separable convolutions and a shortcut; also what the second of the three gives."""
        tf = self.tf
        with tf.variable_scope(f"{scope}/xception_module"):
            y, inside = x, None
            for i, depth in enumerate(depths, start=1):
                if not relu_inside:
                    y = tf.nn.relu(y)
                step = stride if i == 3 else 1
                y = self.separable(y, f"separable_conv{i}", depth, step, rate, relu=relu_inside)
                inside = y if i == 2 else inside
            if skip == "conv":
                y += self.conv(x, "shortcut", depths[-1], stride=stride, relu=False)
            elif skip == "sum":
                y += x
            return y, inside

    def backbone(self, x):
        """Features and low-level features."""
        tf = self.tf
        middle = MIDDLE[self.layers]
        plan = [
            (f"entry_flow/block{i}/unit_1", [depth] * 3, "conv", stride)
            for i, (depth, stride) in enumerate(ENTRY[self.layers], start=1)
        ]
        plan += [
            (f"middle_flow/block1/unit_{i}", [728] * 3, "sum", 1) for i in range(1, middle + 1)
        ]
        plan += [("exit_flow/block1/unit_1", [728, 1024, 1024], "conv", 2)]
        plan += [("exit_flow/block2/unit_1", [1536, 1536, 2048], "none", 1)]
        with tf.variable_scope(f"xception_{self.layers}"):
            x = self.conv(x, "entry_flow/conv1_1", 32, 3, 2)
            x = self.conv(x, "entry_flow/conv1_2", 64, 3)
            reached, rate, low_level = 2, 1, None
            for scope, depths, skip, stride in plan:
                last = skip == "none"
                if reached == self.output_stride:
                    x, inside = self.module(x, scope, depths, skip, 1, rate, relu_inside=last)
                    rate *= stride
                else:
                    x, inside = self.module(x, scope, depths, skip, stride, 1, relu_inside=last)
                    reached *= stride
                if scope.startswith(f"entry_flow/block{LOW_LEVEL[self.layers]}/"):
                    low_level = inside
        return x, low_level

    def logits(self, images):
        """From pixels 0 … 255 of known height and width to logits of that size."""
        tf = self.tf
        height, width = images.shape[1:3]
        x, low_level = self.backbone((2.0 / 255.0) * images - 1.0)
        size = [int((side - 1) / self.output_stride + 1) for side in (height, width)]
        assert list(x.shape[1:3]) == size
        pooled = tf.reduce_mean(x, [1, 2], keepdims=True)
        pooled = self.conv(pooled, "image_pooling", 256, epsilon=1e-5)
        views = [self.resized(pooled, size), self.conv(x, "aspp0", 256, epsilon=1e-5)]
        for i, rate in enumerate(RATES, start=1):
            rate = rate * 16 // self.output_stride
            views.append(self.separable(x, f"aspp{i}", 256, rate=rate, epsilon=1e-5))
        x = self.conv(tf.concat(views, 3), "concat_projection", 256, epsilon=1e-5)
        with tf.variable_scope("decoder"):
            details = self.conv(low_level, "feature_projection0", 48, epsilon=1e-5)
            size = [int((side - 1) / 4 + 1) for side in (height, width)]
            x = tf.concat([self.resized(x, size), self.resized(details, size)], 3)
            x = self.separable(x, "decoder_conv0", 256, epsilon=1e-5)
            x = self.separable(x, "decoder_conv1", 256, epsilon=1e-5)
        with tf.variable_scope("logits/semantic"):
            kernel = self.kernel("weights", [1, 1, 256, CLASSES], 512)
            bias = self.variable("biases", [CLASSES], self.random.normal(0, 1, CLASSES))
            x = tf.nn.conv2d(x, kernel, [1, 1, 1, 1], "SAME") + bias
        return self.resized(x, [height, width])

    def resized(self, x, size):
        return self.tf.image.resize_bilinear(x, size, align_corners=True)


def make(folder: Path, layers: int, output_stride: int) -> None:
    """Random variables, the answers to random images, and the checkpoint."""
    import tensorflow

    tf = tensorflow.compat.v1
    tf.disable_eager_execution()
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(1)
    images = [random.uniform(0, 255, (2, *size, 3)).astype(np.float32) for size in SIZES]
    with tf.Session() as session:
        # Statistics as training would leave them: those of a batch, not quite.
        graph = Graph(tensorflow, layers, output_stride, calibrating=True)
        graph.logits(tf.constant(random.uniform(0, 255, (4, 129, 129, 3)).astype(np.float32)))
        session.run(tf.global_variables_initializer())
        found = session.run({scope: entry[2:] for scope, entry in graph.moments.items()})
        for scope, (mean, variance) in found.items():
            near = mean + 0.1 * variance**0.5 * random.standard_normal(mean.shape)
            graph.moments[scope][0].load(near.astype(np.float32), session)
            spread = variance * random.uniform(0.8, 1.2, variance.shape)
            graph.moments[scope][1].load(spread.astype(np.float32), session)
        # Logits as a trained network has them, of size 2.
        tf.get_variable_scope().reuse_variables()
        loudness = tf.math.reduce_std(
            Graph(tensorflow, layers, output_stride, calibrating=False).logits(
                tf.constant(images[0])
            )
        )
        kernel = tf.get_variable("logits/semantic/weights", [1, 1, 256, CLASSES])
        kernel.load(session.run(kernel * 2 / loudness), session)
        # What else stands in a checkpoint of a training run.
        step = tf.Variable(np.int64(30_000), name="global_step")
        slot = tf.Variable(np.ones(kernel.shape, np.float32), name=f"{kernel.op.name}/Momentum")
        session.run([step.initializer, slot.initializer])
        answers = {"layers": layers, "output_stride": output_stride}
        for i, batch in enumerate(images):
            answer = Graph(tensorflow, layers, output_stride, calibrating=False)
            answers[f"images{i}"] = batch
            answers[f"logits{i}"] = session.run(answer.logits(tf.constant(batch)))
        tf.train.Saver().save(session, str(folder / "model.ckpt"), write_meta_graph=False)
    np.savez(folder / "answers.npz", **answers)
    print(f"{folder}: xception_{layers} at output stride {output_stride}, {len(images)} sizes")


def compare(folder: Path) -> bool:
    """Whether ours gives the same logits from the same checkpoint."""
    import torch

    from xception.models.zoo import create_model
    from xception.weights.convert import read_foreign

    converted = read_foreign(folder / "model.ckpt")
    print(f"{converted.source.title}; left out: {', '.join(converted.left_out)}")
    with np.load(folder / "answers.npz") as answers:
        options = converted.model.options | {"output_stride": int(answers["output_stride"])}
        model = create_model("deeplab_v3plus", **options).eval()
        model.load_state_dict(converted.model.state_dict())
        worst = 0.0
        for i in range(len(SIZES)):
            images = torch.from_numpy(answers[f"images{i}"]).permute(0, 3, 1, 2)
            expected = torch.from_numpy(answers[f"logits{i}"]).permute(0, 3, 1, 2)
            with torch.no_grad():
                logits = model(images * (2 / 255) - 1)
            difference = (logits - expected).abs().max().item()
            agree = (logits.argmax(1) == expected.argmax(1)).float().mean().item()
            worst = max(worst, difference)
            print(
                f"{images.shape[2]}x{images.shape[3]}: largest difference {difference:.1e}, "
                f"logits' standard deviation {expected.std():.2f}, same class {agree:.2%}"
            )
    print(f"over {options['backbone']}: {worst:.1e}, at most {BOUND} is right")
    return worst <= BOUND


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("make", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, choices=(41, 65, 71), default=65)
    parser.add_argument("--output-stride", type=int, choices=(8, 16), default=16)
    given = parser.parse_args()
    if given.part == "make":
        make(given.folder, given.layers, given.output_stride)
        return 0
    return 0 if compare(given.folder) else 1


if __name__ == "__main__":
    sys.exit(main())
