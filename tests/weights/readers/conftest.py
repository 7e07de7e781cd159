"""Foreign files that must be refused, hundreds of them."""

import os
from pathlib import Path

import pytest
from hostile_weights.checkpoints import hostile_archives, hostile_checkpoints
from hostile_weights.hdf5 import hostile_hdf5, hostile_keras
from hostile_weights.pickles import hostile_pickles, hostile_safetensors
from hostile_weights.repeated import hostile_repeated

MAKERS = (
    *(hostile_hdf5, hostile_keras, hostile_checkpoints),
    *(hostile_archives, hostile_pickles, hostile_safetensors, hostile_repeated),
)


@pytest.fixture(scope="session")
def hostile_foreign(tmp_path_factory) -> dict[str, Path]:
    """Files, and things that are none, by what is wrong with them."""
    paths: dict[str, Path] = {}
    for maker in MAKERS:
        made = maker(tmp_path_factory.mktemp(maker.__name__))
        assert not paths.keys() & made.keys()
        paths |= made
    folder = tmp_path_factory.mktemp("hostile_things")
    things = {
        "missing": folder / "missing.h5",
        "name too long": folder / ("x" * 5000),
        "NUL in the name": folder / "a\0b",
        "a name of an ending alone": folder / ".data-00000-of-00001",
        "pipe": folder / "pipe",
        "link to itself": folder / "loop",
        "dead link": folder / "dead",
        "device": Path("/dev/zero"),
        "in a file": folder / "text" / "x",
        "text": folder / "text",
        "nothing": folder / "empty",
        "a picture": folder / "picture",
        "sparse HDF5": folder / "sparse.h5",
        "sparse zip": folder / "sparse.zip",
        "sparse safetensors": folder / "sparse.safetensors",
        "sparse": folder / "sparse",
    }
    os.mkfifo(things["pipe"])
    things["link to itself"].symlink_to(things["link to itself"])
    things["dead link"].symlink_to(folder / "nowhere")
    things["a name of an ending alone"].write_bytes(b"")
    things["text"].write_text("Dear reader, these are no weights. " * 40)
    things["nothing"].write_bytes(b"")
    things["a picture"].write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(400))
    for what, start in (
        ("sparse HDF5", b"\x89HDF\r\n\x1a\n"),
        ("sparse zip", b"PK\3\4"),
        ("sparse safetensors", (1 << 20).to_bytes(8, "little") + b"{"),
        ("sparse", b""),
    ):
        with things[what].open("wb") as file:
            file.write(start)
            file.truncate(1 << 40)
    return paths | things
