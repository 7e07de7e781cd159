"""`xception models`: what the zoo holds and what each costs."""

import click
import torch

from xception.cli import options
from xception.cli.output import print_json, print_table
from xception.cost.count import count
from xception.models.zoo import ZOO, create_model


@click.command("models")
@options.as_json
def command(as_json: bool) -> None:
    """List the models with their parameters and MACs.

    MACs (multiply-accumulates) are those of one image of the size that stands beside them, with
    1000 classes.

    \b
    Example:
      xception models --json
    """
    answers = []
    for entry in ZOO.values():
        with torch.device("meta"):  # shapes without memory
            model = create_model(entry.name)
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
