import json
import subprocess
import sys

import pytest

from xception.models.zoo import list_models

# Table 3 of the Xception paper (its Inception V3 is that of August 2016), and the counts of Keras.
PARAMETERS = {
    "xception": 22_855_952,
    "mobilenet_v1": 4_231_976,
    "inception_v3": 23_834_568,
    "inception_v3_2016": 23_626_728,
    "xception41": 26_969_560,
    "xception65": 39_916_312,
    "xception71": 42_338_736,
}


def test_json(xception):
    result = xception("models", "--json")
    models = {model["name"]: model for model in json.loads(result.stdout)}
    assert result.stderr == ""
    assert list(models) == list_models()
    assert {name: models[name]["parameters"] for name in PARAMETERS} == PARAMETERS
    assert models["xception"]["macs"] == 8_357_403_496
    assert models["xception"]["size"] == 299
    assert "1610.02357" in models["xception"]["citation"]


def test_table(xception):
    heading, row = xception("models", "36 layers", "CVPR").stdout.splitlines()
    assert heading.split()[:3] == ["model", "parameters", "MACs"]
    assert row.split()[:4] == ["xception", "22,855,952", "8,357,403,496", "299"]


def test_words_choose(xception):
    found = json.loads(xception("models", "1802.02611", "ALIGNED", "65", "--json").stdout)
    assert [model["name"] for model in found if "deeplab" not in model["name"]] == ["xception65"]


def test_words_that_no_model_has(xception):
    result = xception("models", "transformer")
    assert (result.status, result.stdout) == (2, "")
    assert "'transformer'" in result.stderr
    assert "mobilenet_v1" in result.stderr


@pytest.mark.usefixtures("unmeasured_children")
def test_it_stays_quick():
    """What costs seconds is torch's compiler, which shapes of common operators do not need."""
    code = (
        "import sys; from xception.cli.main import run; run(['models']);"
        "print('sympy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False", done.stderr
