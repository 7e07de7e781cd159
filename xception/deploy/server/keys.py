"""API keys: read from a file, compared in constant time."""

import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path

from xception.errors import UserError

_SHORTEST = 16  # characters: what cannot be guessed over a network
_LONGEST = 256
_LONGEST_FILE = 2**20  # bytes


class Keys:
    """The keys that open the server. Only their hashes stay in memory."""

    def __init__(self, keys: Iterable[str]):
        self._digests = [_digest(key) for key in keys]

    def open_for(self, header: str | None) -> bool:
        """Whether an `Authorization` header brings one of them: `Bearer KEY`.

        Every key is compared, each in a time that does not depend on what was presented.
        """
        scheme, _, presented = (header or "").partition(" ")
        digest = _digest(presented.strip())
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(known, digest)
        return found and scheme.lower() == "bearer"


def read_keys(path: Path) -> Keys:
    """The keys of a file, one a line; empty lines and those that begin with # are none.

    Raises:
        UserError: the file cannot be read, holds no key, or one that is too short or long.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST_FILE + 1)
        if len(data) > _LONGEST_FILE:  # its end would be cut off, perhaps within a key
            raise UserError(f"{path}: larger than 1 MiB; one key a line is wanted")
        text = data.decode()
    except OSError as error:
        raise UserError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text: one key a line is wanted") from error
    lines = enumerate(map(str.strip, text.splitlines()), 1)
    keys = {number: line for number, line in lines if line and not line.startswith("#")}
    for number, key in keys.items():
        if not (_SHORTEST <= len(key) <= _LONGEST and key.isascii() and " " not in key):
            raise UserError(
                f"{path}, line {number}: a key has {_SHORTEST} to {_LONGEST} characters, no spaces;"
                " `openssl rand -hex 24` makes one"
            )
    if not keys:
        raise UserError(f"{path} holds no key; `openssl rand -hex 24` makes one")
    return Keys(keys.values())


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()
