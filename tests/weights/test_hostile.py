"""Model files as an enemy would write them: one clear line each, soon, and with little memory."""

import json
import os
import random
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from xception.weights.card import ModelFileError, read_card
from xception.weights.model_file import load_model

MOST_BYTES = 64 << 20
MOST_S = 5  # of computing, so that a busy machine fails no test


# In a process of its own: there nothing is checked that is only checked in tests, so that time and
# memory are those of a user, and a crash would be seen.
LOAD_ALL = """
import json, pathlib, sys, time
from xception.weights.card import ModelFileError
from xception.weights.model_file import load_model

def memory_kib(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

good, *paths = json.load(sys.stdin)
load_model(pathlib.Path(good))  # whatever is imported on first use is not to be counted
outcomes = []
for path in paths:
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, begin = memory_kib("VmRSS"), time.process_time()
    reason = None
    try:
        load_model(pathlib.Path(path))
    except ModelFileError as error:
        reason = error.reason
    outcomes.append([reason, time.process_time() - begin, memory_kib("VmHWM") - before])
print(json.dumps(outcomes))
"""


@pytest.mark.usefixtures("unmeasured_children")
def test_each_is_refused_in_one_line_and_in_little_memory(hostile, good, tmp_path):
    assert len(hostile) >= 200
    sound = tmp_path / "sound.safetensors"
    sound.write_bytes(good)
    done = subprocess.run(
        [sys.executable, "-c", LOAD_ALL],
        input=json.dumps([str(path) for path in (sound, *hostile.values())]),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    outcomes = dict(zip(hostile, json.loads(done.stdout), strict=True))
    for what, (reason, seconds, _) in outcomes.items():
        assert reason is not None, f"{what} was loaded"
        assert 5 < len(reason) < 400, (what, reason)
        assert "\n" not in reason, (what, reason)
        assert seconds < MOST_S, (what, seconds)
    assert not (hostile["folder"] / "code was run").exists()
    worst = max(outcomes, key=lambda what: outcomes[what][2])
    most_kib = outcomes[worst][2]
    print(f"{len(outcomes)} files, at most {most_kib} KiB, for {worst}")
    assert 1000 < most_kib < MOST_BYTES >> 10  # 2 MiB of header must show, or nothing is measured


def test_truncated_at_every_byte_of_the_header(good, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(good)
    header_bytes = 8 + int.from_bytes(good[:8], "little")
    for length in range(header_bytes, -1, -1):
        os.truncate(path, length)
        with pytest.raises(ModelFileError):
            load_model(path)


def test_bits_flipped_in_the_header_never_surprise(good, tmp_path):
    path = tmp_path / "model.safetensors"
    header_bytes = 8 + int.from_bytes(good[:8], "little")
    rng = random.Random(0)
    refused = 0
    for _ in range(300):
        content = bytearray(good)
        for _ in range(rng.choice([1, 1, 1, 2, 5])):
            content[rng.randrange(header_bytes)] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
        try:
            load_model(path)  # a letter of a class may differ and the file still be sound
        except ModelFileError:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("missing", "No such file"),
        ("folder", "not a regular file"),
        ("pipe", "not a regular file"),
        ("zip", "a PyTorch archive or another zip file; pickles are never read"),
        ("pickle 4", "a Python pickle; pickles are never read"),
        ("hdf5", "an HDF5 file"),
        ("text", "not a model file (a header of"),
        ("no card", "without a card of ours"),
        ("a byte too few", "its tensors need 16,356 bytes, 16,355 are there"),
        ("deep header", "nested too deep"),
        ("one tensor twice", "twice"),
        ("many lists", "more than 250,000 items"),
        ("card: NaN", "NaN is not JSON"),
        ("card version '2.0'", "its card has version 2.0, this program reads 1.x: a newer program"),
        ("card version '0.9'", "it is too old"),
        ("card task 'regression'", "its card is wrong at 'task': Input should be"),
        ("card classes ['a', 'b']", "2 classes, but 3 logits"),
        ("name 'resnet50'", "no model is called 'resnet50'"),
        ("option middle 1000000000", "middle must be a whole number from 0 to 64"),
        ("option middle 0", "it alone has 21 tensors, for example 'middle.0"),
        ("option middle 2", "it lacks 21 tensors, for example 'middle.1"),
        ("option width 0.5", "it has in another shape"),
        ("option widht 1.0", "did you mean 'width'?"),
        ("tensor dtype 'F64'", "has the type 'F64'; F32, F16, BF16, I64 are known"),
        ("tensor shape [1000000000000]", "does not fill its bytes"),
    ],
)
def test_the_line_says_what_is_wrong(hostile, what, message):
    with pytest.raises(ModelFileError) as caught:
        load_model(hostile[what])
    assert message in str(caught.value)
    assert caught.value.path == hostile[what]


def test_a_card_alone_is_judged_too(hostile):
    for what in ("missing", "pipe", "pickle 4", "card: deep", "card: cut", "length 2^63"):
        with pytest.raises(ModelFileError):
            read_card(hostile[what])


def test_huge_files_need_no_address_space(hostile):
    """Unlike a measurement afterwards this also stops what is allocated and given back at once."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES, hard))
    try:
        for what in ("sparse", "sparse with a header", "option width 16", "length 2147483648"):
            with pytest.raises(ModelFileError):
                load_model(hostile[what])
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
