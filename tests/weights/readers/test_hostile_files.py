"""Foreign files as an enemy would write them: one clear line each, soon, and with little memory."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from foreign_files import read_all

from xception.weights.readers.stored import ForeignFileError

MOST_BYTES = 64 << 20
MOST_S = 5  # of computing, so that a busy machine fails no test


class Outcome(NamedTuple):
    """What became of one file."""

    reason: str | None  # None if it was read
    seconds: float  # of computing
    growth_kib: int  # of the memory in use, at its peak


# In a process of its own: there nothing is checked that is only checked in tests, so that time and
# memory are those of a user, and a crash would be seen. The limit of the address space, unlike a
# measurement afterwards, also stops what is allocated and given back at once.
READ_ALL = """
import json, pathlib, resource, sys, time
from xception.weights.readers.detect import open_foreign
from xception.weights.readers.stored import ForeignFileError

def memory_kib(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))

def read_all(path):
    try:
        with open_foreign(pathlib.Path(path)) as foreign:
            for tensor in foreign.tensors.values():
                tensor.read()
    except ForeignFileError as error:
        assert str(error.path) == path, (error.path, path)
        return error.reason

good, paths, most_bytes = json.load(sys.stdin)
for path in good:
    assert read_all(path) is None  # what is imported or built on first use is not to be counted
size = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + most_bytes,) * 2)
outcomes = []
for path in paths:
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, begin = memory_kib("VmRSS"), time.process_time()
    reason = read_all(path)
    outcomes.append([reason, time.process_time() - begin, memory_kib("VmHWM") - before])
print(json.dumps(outcomes))
"""

GOOD = [Path(__file__).parents[2] / "fixtures/tensorflow" / name for name in ("many", "slices")]


def read_elsewhere(paths: list[Path]) -> list[Outcome]:
    done = subprocess.run(
        [sys.executable, "-c", READ_ALL],
        input=json.dumps([list(map(str, GOOD)), list(map(str, paths)), MOST_BYTES]),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return [Outcome(*one) for one in json.loads(done.stdout)]


@pytest.mark.usefixtures("unmeasured_children")
def test_each_is_refused_in_one_line_and_in_little_memory(hostile_foreign):
    found = read_elsewhere(list(hostile_foreign.values()))
    outcomes = dict(zip(hostile_foreign, found, strict=True))
    assert len(outcomes) >= 300
    for what, (reason, seconds, _) in outcomes.items():
        assert reason is not None, f"{what} was read"
        assert 5 < len(reason) < 400, (what, reason)
        assert reason.isprintable(), (what, reason)
        assert "allocate" not in reason, (what, reason)  # judged beforehand, not tried
        assert seconds < MOST_S, (what, seconds)
    worst = max(outcomes, key=lambda what: outcomes[what].growth_kib)
    most_kib = outcomes[worst].growth_kib
    print(f"{len(outcomes)} files, at most {most_kib} KiB, for {worst}")
    assert 1000 < most_kib < MOST_BYTES >> 10  # some must show, or nothing is measured


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("h5 soft link", "is a soft or external link; links are not followed"),
        ("h5 external link", "is a soft or external link; links are not followed"),
        ("h5 external storage", "the values of 'layers/a/vars/0' are in other files"),
        ("h5 virtual", "is a virtual data set, made of other files"),
        ("h5 circle", "leads back to an object that was there already"),
        ("h5 deep", "32 groups in groups"),
        ("h5 bomb", "compressed or in pieces"),
        ("h5 huge and empty", "were never written"),
        ("h5 text elsewhere", "holds text, not numbers"),
        ("h5 superblock 48 0", "spread over several files"),
        ("h5 dense group", "copy the file with h5py and its default settings"),
        ("keras bomb", "would grow from"),
        ("keras encrypted", "is encrypted"),
        ("tf data missing", "model.ckpt.data-00000-of-00001: No such file"),
        ("tf data pipe", "not a regular file"),
        ("tf empty", "a block of the index without entries"),
        ("tf compressed", "a compressed index"),
        ("tf slices overlap", "the slices of tensor 'weights' do not add up to it"),
        ("tf five over the same bytes", "need more than 16 bytes"),
        ("tf wrong checksum", "the values of tensor 'weights' have another checksum"),
        ("tar a link", "in the archive is neither a file nor a folder"),
        ("tar a bomb", "a bomb"),
        ("tar a name ../a", "called '../a/model.ckpt.index'"),
        ("pth asks for os system", "its pickle asks for 'os.system'; only tensors and plain"),
        ("old pth asks for builtins eval", "its pickle asks for 'builtins.eval'"),
        ("pth expanded from one value", "would need more than"),
        ("old pth 2^62 values", "truncated or damaged"),
        ("pth with code", "a TorchScript program"),
        ("h5 one text often", "is longer than 4,194,304 bytes"),
        ("h5 one text in many groups", "more than 25,165,824 bytes of texts ('"),
        ("h5 one name often", "a name is not where it should be, or endless"),
        ("h5 one layer often", "a layer is announced twice"),
        ("h5 a list in many parts", "spread over more than 1000 attributes"),
        ("h5 many attributes", "has more than 2,000 attributes"),
        ("pth one list of pairs often", "a pickle of more than 400,000 steps"),
        ("pth one endless shape often", "a tensor of 60,000 dimensions"),
        ("pth an endless prefix", "a tensor called 'module.module."),
        ("safetensors overlap", "overlaps another or leaves a gap"),
        ("text", "not a weight file of a known kind"),
        ("missing", "No such file"),
        ("pipe", "not a regular file"),
    ],
)
def test_the_line_says_what_is_wrong(hostile_foreign, what, message):
    with pytest.raises(ForeignFileError) as caught:
        read_all(hostile_foreign[what])
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(hostile_foreign[what]))
