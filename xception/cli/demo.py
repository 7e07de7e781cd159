"""`xception demo`: the whole way, from embedded photos or scenes to a report and answers."""

import shlex
from itertools import chain, count
from pathlib import Path
from typing import Any

import click

from xception.cli import demo_masks, options
from xception.cli.output import percent, print_json, print_table, show
from xception.cli.reporting import report_training
from xception.cli.train import answer, conclusion
from xception.data.demo import DEMO_PHOTOS
from xception.deploy.runtime import Predictor
from xception.training.progress import Lines
from xception.training.recipes import configure
from xception.training.run import train
from xception.training.trained import TrainedClassifier

# What differs from the recipe `scratch`: photos of 96 pixels are read in a millisecond, and a
# process for them alone would only disturb the threads that compute.
SETTINGS: dict[str, Any] = {"workers": 0}
SHOWN = 6  # photos to predict at the end


@click.command("demo")
@click.option(
    "--out",
    type=options.FilePath(),
    metavar="FOLDER",
    help="The run folder; by default demo, demo-2, …",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=options.SEED,
    metavar="N",
    help="Another seed, another training.",
)
@click.option("--epochs", type=options.EPOCHS, metavar="N", help="Fewer are quicker and worse.")
@click.option("--masks", is_flag=True, help="Segment scenes of shapes, which are made here.")
@options.as_json
@options.quiet
def command(
    out: Path | None, seed: int, epochs: int | None, masks: bool, as_json: bool, quiet: bool
) -> None:
    """Train, measure, explain and predict on the embedded photos.

    1,200 photos of ten kinds of clothing; a few minutes on two cores, no GPU needed. With --masks
    it is 300 scenes of shapes with exact masks, which a small DeepLab V3+ learns to segment.

    \b
    Examples:
      xception demo --out demo
      xception demo --masks
    """
    if masks:
        segment_scenes(out or free_folder(), seed, epochs, as_json, quiet)
        return
    settings = SETTINGS | {"seed": seed} | ({} if epochs is None else {"epochs": epochs})
    trained = train(
        DEMO_PHOTOS,
        configure(recipe="scratch", settings=settings),
        out or free_folder(),
        progress=None if quiet else Lines(),
    )
    if not isinstance(trained, TrainedClassifier):
        raise TypeError("the embedded photos have classes, not masks")
    report = report_training(trained, shlex.join(repeated(seed, epochs)))
    examples = predict_examples(trained)
    if as_json:
        print_json({**answer(trained, report), "examples": examples})
        return
    print_table(
        ["held-out photo", "it is", "the model says", "probability", ""],
        [
            [
                one["photo"],
                one["truth"],
                one["answer"],
                percent(one["probability"]),
                "" if one["truth"] == one["answer"] else "✗",
            ]
            for one in examples
        ],
        right=["probability"],
    )
    show(f"\n{conclusion(trained, report)}")


def repeated(seed: int, epochs: int | None, *words: str) -> list[str]:
    """The command that does the same."""
    fewer = [] if epochs is None else ["--epochs", str(epochs)]
    return ["xception", "demo", *words, "--seed", str(seed), *fewer]


def segment_scenes(out: Path, seed: int, epochs: int | None, as_json: bool, quiet: bool) -> None:
    """`--masks`."""
    repeats = shlex.join(repeated(seed, epochs, "--masks"))
    progress = None if quiet else Lines()
    trained, report, examples = demo_masks.demonstrate(out, seed, epochs, repeats, progress)
    if as_json:
        print_json({**answer(trained, report), "examples": examples})
        return
    print_table(["held-out scene", "covered by", "mask"], demo_masks.rows(examples))
    show(f"\n{conclusion(trained, report)}")


def free_folder() -> Path:
    """`demo`, or `demo-2`, … where it is taken."""
    folders = chain([Path("demo")], (Path(f"demo-{n}") for n in count(2)))
    return next(folder for folder in folders if not folder.exists())


def predict_examples(trained: TrainedClassifier) -> list[dict[str, Any]]:
    """What the model file says about some photos that the training never saw."""
    predictor = Predictor(trained.folder)
    members = trained.photos.of("test")
    answers = []
    for photo in members[:: len(members) // SHOWN][:SHOWN]:
        ((label, probability),) = predictor(trained.photos.read(photo)).top(1)
        truth = trained.photos.classes[photo.labels[0]]
        answers.append(
            {"photo": photo.name, "truth": truth, "answer": label, "probability": probability}
        )
    return answers
