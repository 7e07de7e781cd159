"""`--set KEY=VALUE`, as several verbs take it."""

from typing import Any

import yaml

from xception.errors import UserError


def parse_assignment(text: str) -> tuple[str, Any]:
    """`KEY=VALUE` with the value as in YAML: 3, 0.1, true, null, [1, 2] or text."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise UserError(f"--set wants KEY=VALUE, e.g. --set clip_norm=1, not {text!r}")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        raise UserError(f"--set {key}: {value!r} is no value") from None
