import pytest
import torch

from xception.errors import UserError
from xception.models import zoo
from xception.models.classifier import Classifier
from xception.models.segmenter import Segmenter
from xception.models.xception import Xception
from xception.models.zoo import ZOO, create_model, list_models


def test_names_lead_to_models():
    assert "xception" in list_models()
    model = create_model("xception", num_classes=3, width=0.1, middle=1)
    assert isinstance(model, Xception)
    assert model.training
    assert model.options["num_classes"] == 3


@pytest.mark.parametrize("name", list_models())
def test_every_entry_keeps_the_contract(name):
    entry = ZOO[name]
    assert entry.name == name
    assert "\n" not in entry.summary
    with torch.device("meta"):
        model = create_model(name, num_classes=4)
        x = torch.zeros(2, 3, entry.size, entry.size)
        stages = model.eval().forward_features(x)
    assert entry.size >= model.MINIMUM_SIZE
    if isinstance(model, Segmenter):
        assert model(x).shape == (2, 4, entry.size, entry.size)
        return
    assert isinstance(model, Classifier)
    sides = [stage.shape[-1] for stage in stages.values()]
    assert sides == sorted(sides, reverse=True)
    assert model.embed(x).shape == (2, model.num_features)
    assert model(x).shape == (2, 4)


def test_the_zoo_cannot_be_changed():
    with pytest.raises(TypeError):
        ZOO["mine"] = ZOO["xception"]  # pyright: ignore[reportIndexIssue]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("xeption", {}, "no model is called 'xeption'; did you mean 'xception'?"),
        ("resnet", {}, "no model is called 'resnet'; known are xception"),
        ("xception", {"clases": 3}, "xception has no option 'clases'; did you mean "),
        ("xception", {"zzz": 3}, "xception has no option 'zzz'; known are num_classes, "),
        ("xception", {"num_classes": "3"}, "num_classes must be a whole number, not '3'"),
        ("xception", {"num_classes": 3.0}, "num_classes must be a whole number, not 3.0"),
        ("xception", {"num_classes": True}, "num_classes must be a whole number, not True"),
        ("xception", {"width": "wide"}, "width must be a number, not 'wide'"),
        ("xception", {"width": False}, "width must be a number, not False"),
        ("xception", {"residual": 1}, "residual must be true or false, not 1"),
        ("xception", {"activation": None}, "activation must be a word, not None"),
        ("xception", {"fully_connected": 4096}, "must be a list of whole numbers, not 4096"),
        ("xception", {"fully_connected": ["a"]}, "must be a list of whole numbers, not ['a']"),
        ("xception", {"stem_stride": 3}, "xception: stem_stride must be one of 1, 2, not 3"),
        ("xception", {"middle": 10**30}, "middle must be a whole number from 0 to 64"),
        ("xception", {"segments": "all"}, "segments must be a whole number, not 'all'"),
        ("xception", {"segments": 2.0}, "segments must be a whole number, not 2.0"),
        ("xception", {"parameters": True}, "parameters must be a whole number, not True"),
    ],
)
def test_what_was_asked_for_wrongly_is_told_in_one_line(name, options, message):
    with pytest.raises(UserError) as caught:
        create_model(name, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_whole_numbers_do_for_fractions():
    assert create_model("xception", width=1, middle=0).options["width"] == 1.0


def test_an_option_of_a_kind_that_json_lacks_is_our_own_mistake(monkeypatch):
    class Odd(Xception):
        def __init__(self, *, groups: set | None = None):
            super().__init__()

    entry = ZOO["xception"]._replace(build=Odd)
    monkeypatch.setattr(zoo, "ZOO", {"xception": entry})
    with pytest.raises(TypeError, match="unknown kind"):
        create_model("xception", groups=set())
