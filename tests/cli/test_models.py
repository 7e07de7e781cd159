import json


def test_json(xception):
    result = xception("models", "--json")
    (model,) = json.loads(result.stdout)
    assert result.stderr == ""
    assert model["name"] == "xception"
    assert model["parameters"] == 22_855_952
    assert model["macs"] == 8_357_403_496
    assert model["size"] == 299
    assert "1610.02357" in model["citation"]


def test_table(xception):
    heading, row = xception("models").stdout.splitlines()
    assert heading.split()[:3] == ["model", "parameters", "MACs"]
    assert row.split()[:4] == ["xception", "22,855,952", "8,357,403,496", "299"]
