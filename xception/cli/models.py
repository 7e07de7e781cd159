"""`xception models`: what the zoo holds and what each costs."""

import click
import torch

from xception.cli import options
from xception.cli.output import print_json, print_table
from xception.cost.count import count
from xception.errors import UserError
from xception.models.zoo import ZOO, Entry


@click.command("models")
@click.argument("words", nargs=-1)
@options.as_json
def command(words: tuple[str, ...], as_json: bool) -> None:
    """List the models with their parameters and MACs.

    With WORDS only those in whose name or description all of them occur. MACs
    (multiply-accumulates) are those of one image of the size that stands beside them, with as many
    classes as the model was published with.

    \b
    Examples:
      xception models
      xception models aligned --json
    """
    entries = [entry for entry in ZOO.values() if all(_mentions(entry, word) for word in words)]
    if not entries:
        raise UserError(
            f"no model has {' and '.join(map(repr, words))}; there are {', '.join(ZOO)}"
        )
    answers = []
    for entry in entries:
        with torch.device("meta"):  # shapes without memory
            model = entry.build()
        total = count(model, entry.size).total
        answers.append(
            {
                "name": entry.name,
                "parameters": total["parameters"],
                "macs": total["macs"],
                "size": entry.size,
                "summary": entry.summary,
                "citation": entry.citation,
            }
        )
    if as_json:
        print_json(answers)
        return
    print_table(
        ["model", "parameters", "MACs", "pixels", "what it is"],
        [
            [
                answer["name"],
                f"{answer['parameters']:,}",
                f"{answer['macs']:,}",
                str(answer["size"]),
                answer["summary"],
            ]
            for answer in answers
        ],
        right=["parameters", "MACs", "pixels"],
    )


def _mentions(entry: Entry, word: str) -> bool:
    """Whether a word occurs in what is said of a model, in capitals or not."""
    said = f"{entry.name} {entry.summary} {entry.citation}"
    return word.lower() in said.lower()
