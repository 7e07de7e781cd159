import json
from functools import partial
from pathlib import Path

import oracles
import pytest
from PIL import Image

from xception.cli import cost as verb
from xception.cli.cost import read_size
from xception.cli.costing import large
from xception.cost import measure as measuring
from xception.cost.machine import measure_machine
from xception.errors import UserError

TINY = ("xception", "--set", "width=0.1", "--set", "middle=1", "--size", "64")
EXAMPLE = ("cost", "conv", "--input", "11x11x3", "--kernel", "3", "--filters", "16")
EXAMPLE += ("--stride", "2", "--padding", "1")


def test_json_of_xception(xception):
    result = xception("cost", "xception", "--json")
    answer = json.loads(result.stdout)
    assert (result.status, result.stderr) == (0, "")
    assert answer["total"]["parameters"] == 22_855_952
    assert answer["total"]["macs"] == 8_357_403_496
    assert set(answer["total"]) == {"parameters", "macs", "bytes"}
    assert answer["size"] == [299, 299]
    for key in ("parameters", "macs", "bytes"):
        assert sum(layer[key] for layer in answer["layers"]) == answer["total"][key]
    assert {"name", "kind", "output", "receptive_field"} <= set(answer["layers"][0])
    assert len(answer["separable"]) == 34  # §3 of the paper: 36 layers less the first two
    assert answer["uncounted"]["native_batch_norm"] == 40
    assert answer["regular"]["macs"] > 8 * answer["total"]["macs"]


def test_a_person_reads(xception):
    result = xception("cost", "mobilenet_v1")
    lines = result.stdout.splitlines()
    assert (result.status, result.stderr) == (0, "")
    assert lines[0] == "mobilenet_v1 at 224x224x3"
    rows = {line.split()[0]: line.split() for line in lines if line}
    # Table 2 of the paper: 94.86 % of the MACs.
    assert rows["pointwise"][1:3] == ["13", "3,139,584"]
    assert rows["pointwise"][5:8] == ["539,492,352", "94.9", "%"]
    assert rows["all"][1:3] == ["83", "4,231,976"]
    assert "FLOPs, counted as 2 x MACs: 1.14 G" in result.stdout
    assert "with regular convolutions: 4,867,293,184 MACs (8.56 times)" in result.stdout
    assert "ran and has no MACs: native_batch_norm 27, hardtanh_ 27" in result.stdout


def test_size_and_options(xception):
    # Table 6 and 7: the width and the resolution multiply.
    whole = json.loads(xception("cost", "mobilenet_v1", "--set", "width=0.5", "--json").stdout)
    assert round(whole["total"]["macs"] / 1e6) == 149
    wide = json.loads(xception("cost", "--json", "--size", "160x192", "mobilenet_v1").stdout)
    assert wide["size"] == [160, 192]
    as_train = ("--set", "model_options.width=0.5")
    assert json.loads(xception("cost", "mobilenet_v1", *as_train, "--json").stdout) == whole


def test_layers_and_separable(xception):
    result = xception("cost", *TINY, "--layers", "--separable")
    lines = result.stdout.splitlines()
    heading = lines[0].split()
    assert heading[:3] == ["layer", "kind", "output"]
    first = lines[1].split()
    assert first[:3] == ["stem.0", "regular", "8x31x31"]
    ratio = next(line for line in lines if "1/N + 1/k²" in line)
    assert ratio.split()[:2] == ["depthwise", "pointwise"]
    pair = lines[lines.index(ratio) + 1].split()
    # 8 to 16 channels: 1/16 + 1/9
    assert pair[:2] == ["entry1.body.0.depthwise", "entry1.body.0.pointwise"]
    assert pair[-1] == pair[-2] == f"{1 / 16 + 1 / 9:.4f}"


def test_a_trained_model(xception, trained: Path):
    answer = json.loads(xception("cost", trained, "--json").stdout)
    assert answer["size"] == [16, 16]
    named = json.loads(xception("cost", trained / "model.safetensors", "--json").stdout)
    assert named["total"] == answer["total"]
    other = json.loads(xception("cost", trained, "--size", "32", "--json").stdout)
    assert other["total"]["macs"] > 2 * answer["total"]["macs"]
    result = xception("cost", trained, "--set", "width=1")
    assert result.status == 2
    assert "without --set" in result.stderr


def test_a_network_of_timm(xception):
    oracles.timm()
    answer = json.loads(xception("cost", "timm:resnet18", "--json").stdout)
    # He et al. 2016, Table 1: 1.8 x 10^9; timm's own count of parameters.
    assert round(answer["total"]["macs"] / 1e9, 1) == 1.8
    assert answer["total"]["parameters"] == 11_689_512
    assert answer["separable"] == []
    assert "no separable convolutions" in xception("cost", "timm:resnet18").stdout


@pytest.fixture
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ceilings measured on little, times taken once: what they are is no matter here."""
    quick = partial(measure_machine, side=64, values=4096)
    monkeypatch.setattr(measuring, "measure_machine", quick)
    monkeypatch.setattr(verb, "measure", partial(measuring.measure, repeats=1))


@pytest.mark.usefixtures("small_machine")
def test_measured(xception, tmp_path: Path):
    picture = tmp_path / "roof line.png"
    result = xception("cost", *TINY, "--plot", picture, "--json", "--device", "cpu")
    answer = json.loads(result.stdout)
    assert result.status == 0
    quiet = xception("cost", *TINY, "--plot", picture, "--device", "cpu", "--quiet")
    assert (quiet.status, quiet.stderr) == (0, "")
    with Image.open(picture) as image:
        assert image.format == "PNG"
    assert f"roofline: {picture}" in result.stderr
    assert all(layer["time_ms"] >= 0 for layer in answer["layers"])
    assert {layer["bound"] for layer in answer["layers"]} <= {"arithmetic", "bandwidth"}
    assert answer["machine"]["threads"] == 1
    assert all(one["regular_time_ms"] > 0 for one in answer["separable"])


@pytest.mark.usefixtures("small_machine")
def test_measured_for_a_person(xception):
    result = xception("cost", *TINY, "--measure", "--layers", "--separable", "--device", "cpu")
    assert "measuring xception at 64x64x3 on 1 thread" in result.stderr
    assert "this machine (cpu, 1 thread, float32)" in result.stdout
    assert "GMAC/s in a large matrix product" in result.stdout
    assert "where regular ones take" in result.stdout


def test_the_textbook(xception):
    result = xception(*EXAMPLE)
    assert "output: 6x6x16" in result.stdout
    assert "MACs = 6x6 x 432 = 15,552" in result.stdout
    figures = json.loads(xception(*EXAMPLE, "--json").stdout)
    assert figures["output"] == [6, 6, 16]
    assert figures["regular"] == {"macs": 15_552, "parameters": 432}
    assert figures["separable"] == {"macs": 2_700, "parameters": 75}
    biased = json.loads(xception(*EXAMPLE, "--bias", "--json").stdout)
    assert biased["regular"]["parameters"] == 448


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cost", "xceptoin"), "did you mean 'xception'?"),
        (("cost", "nowhere/model.safetensors"), "nowhere/model.safetensors"),
        (("cost", "xception", "--size", "0"), "--size wants"),
        (("cost", "xception", "--size", "big"), "--size wants"),
        (("cost", "xception", "--size", "3"), "too small"),
        (("cost", "xception", "--set", "width"), "--set wants KEY=VALUE"),
        (("cost", "xception", "--set", "wdith=2"), "did you mean 'width'?"),
        (("cost", "xception", "--plot", "roof.pdf"), ".svg or .png"),
        (("cost", "xception", "--measure", "--device", "tpu"), "device"),
        (("cost", "conv", "--input", "11x11", "--kernel", "3", "--filters", "1"), "11x11x3"),
        (("cost", "conv", "--input", "2x2x3", "--kernel", "3", "--filters", "1"), "does not fit"),
        (("cost", "conv", "--kernel", "3"), "--input"),
        (("cost", "conv", "--input", "9x9x3", "--kernel", "x", "--filters", "1"), "integer"),
    ],
)
def test_asked_wrongly(xception, arguments: tuple[str, ...], message: str):
    result = xception(*arguments)
    assert (result.status, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_help_says_all_forms(xception):
    text = xception("cost", "--help").stdout
    for part in ("MODEL [OPTIONS]", "cost conv [OPTIONS]", "cost tables", "--measure", "timm:"):
        assert part in text
    assert "--depth-multiplier" in xception("cost", "conv", "--help").stdout


@pytest.mark.parametrize(
    ("text", "size"), [("299", (299, 299)), ("480x640", (480, 640)), (" 32X16 ", (32, 16))]
)
def test_sizes(text: str, size: tuple[int, int]):
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "0", "-3", "3x", "3x4x5", "12345", "1e2", "03"])
def test_no_sizes(text: str):
    with pytest.raises(UserError, match="--size wants"):
        read_size(text)


def test_large_numbers():
    said = [large(number) for number in (8_357_403_496, 568_740_352, 12_345, 7, 2.5e12)]
    assert said == ["8.36 G", "569 M", "12.3 k", "7", "2.5 T"]


@pytest.mark.slow
def test_the_tables_of_the_papers(xception):
    lines = xception("cost", "tables").stdout.splitlines()
    differing = [line for line in lines if " differs " in line]
    assert len(differing) == 1
    assert "misprint for 1.91" in differing[0]
    assert "MobileNet, Table 1: 27 of 28 layers agree" in lines
    answer = json.loads(xception("cost", "tables", "--json").stdout)
    assert sum(row["agrees"] for row in answer["rows"]) == len(answer["rows"]) - 1
