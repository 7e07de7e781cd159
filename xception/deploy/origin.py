"""Which model a table of answers comes from, so that no other one goes on with it.

It stands in a small file beside the table, `answers.csv.resume.json`, written before the first row:
the table's own columns are for those who read it.
"""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

from xception.deploy.engines import find_model
from xception.errors import UserError
from xception.weights.atomic import write_whole

ENDING = ".resume.json"


class Origin(NamedTuple):
    """What must be the same in all rows of a table."""

    sha256: str
    """Of the model's file, or files."""
    top: int
    """Classes that a row has at most."""


def origin_of(run: Path, top: int) -> Origin:
    """That of the answers of a model.

    Raises:
        UserError: there is no model at `run`.
    """
    model = find_model(run)
    digest = hashlib.sha256()
    for file in (model, model.with_suffix(".bin")):  # OpenVINO's weights stand in the second
        if file == model or (model.suffix == ".xml" and file.exists()):
            with file.open("rb") as opened:
                digest.update(hashlib.file_digest(opened, "sha256").digest())
    return Origin(digest.hexdigest(), top)


def settle(table: Path, origin: Origin, *, begun: bool) -> None:
    """Write beside a table where its answers come from; or, if it has some, see that it says so.

    Args:
        table: the file or the folder.
        origin: of the answers to come.
        begun: there are answers in it.

    Raises:
        UserError: its answers are another model's, or nothing says whose.
    """
    table = table.resolve()
    if table.exists() and not (table.is_file() or table.is_dir()):
        return  # a pipe or a device, which nobody can go on with
    file = table.with_name(table.name + ENDING)
    if not begun:
        text = json.dumps(origin._asdict(), indent=2) + "\n"
        write_whole(file, lambda out: out.write(text.encode()))
        return
    try:
        said = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"--resume: {table} has answers, but no {file.name} beside it says which model gave "
            "them; name another file"
        ) from error
    if said == origin._asdict():
        return
    top = said.get("top") if isinstance(said, dict) else None
    if isinstance(top, int) and top != origin.top:
        raise UserError(
            f"--resume: {table} has {top} classes a photo, this run {origin.top}; "
            "give the same --top, or another file"
        )
    raise UserError(
        f"--resume: the answers in {table} are those of another model, as {file.name} says; "
        "give the same model, or another file"
    )
