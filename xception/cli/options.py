"""Options that several verbs have."""

import click

as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
quiet = click.option("--quiet", "-q", is_flag=True, help="No progress and no remarks.")
device = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps."
)
