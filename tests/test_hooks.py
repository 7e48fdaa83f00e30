import pytest
import torch
from networks import FunctionalInPlace, RunsTwice, State, TwoConvs
from torch import nn

from captum_blackbox.errors import LayerError
from captum_blackbox.hooks import captured, evaluating, find_layers, out_of_place


@pytest.mark.parametrize("ending", ["normal", "raises"])
def test_nothing_outlives_the_blocks(ending):
    model = TwoConvs(inplace=True).train()
    model.norm.eval()
    before = State(model)
    layers = find_layers(model, None)
    try:
        with evaluating(model), out_of_place(model), captured(layers) as seen:
            assert not any(m.training for m in model.modules())
            assert not model.relu1.inplace
            model(torch.zeros(1, 3 if ending == "normal" else 9, 8, 8))
    except RuntimeError:
        assert ending == "raises"
    assert State(model).differences(before) == []
    assert list(seen) == (["conv1", "conv2"] if ending == "normal" else [])


def test_layers_come_in_the_order_in_which_they_run():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Conv2d(2, 1, 1), nn.Conv2d(1, 2, 1)

        def forward(self, x):
            return self.last(self.first(x))

    model = Backwards()
    with captured(find_layers(model, None)) as seen:
        model(torch.zeros(1, 1, 2, 2))
    assert list(seen) == ["first", "last"]


def test_an_overwritten_activation_is_noticed_and_a_copy_is_not_overwritten():
    model = FunctionalInPlace().eval()
    layers = find_layers(model, ["norm", "conv1"])
    x = torch.rand(1, 3, 8, 8) - 0.5
    with captured(layers) as seen:
        model(x)
    assert seen.overwritten() == ["norm"]
    with captured(layers, copy=True) as seen:
        model(x)
    assert seen.overwritten() == []
    assert float(seen["norm"].detach().min()) < 0


def test_a_layer_that_runs_twice_has_no_single_activation():
    model = RunsTwice()
    message = r"layer 'shared' \(Conv2d\) runs more than once in one forward pass.*`layers`"
    with pytest.raises(LayerError, match=message), captured(find_layers(model, None)):
        model(torch.zeros(1, 3, 4, 4))


def test_a_layer_that_puts_out_a_tuple_is_refused():
    model = nn.LSTM(3, 2)
    message = "layer '' \\(LSTM\\) puts out a tuple, not a tensor; choose a layer inside it"
    with pytest.raises(LayerError, match=message), captured({"": model}):
        model(torch.zeros(1, 1, 3))


def test_layers_are_found_by_name_by_module_and_by_alias():
    model = TwoConvs()
    model.alias = model.conv2
    assert list(find_layers(model, ["conv2", model.conv1])) == ["conv2", "conv1"]
    assert list(find_layers(model, "alias")) == ["conv2"]
    assert list(find_layers(model, None)) == ["conv1", "conv2"]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("conv3", r"TwoConvs has no layer 'conv3'; the nearest names are 'conv[12]', 'conv[12]'"),
        ([], "`layers` is empty; name at least one, or None for every Conv2d"),
        (["conv1", "conv1"], "layer 'conv1' is named twice in `layers`"),
        (nn.ReLU(), "ReLU is not a layer of TwoConvs"),
    ],
    ids=["unknown", "empty", "twice", "foreign"],
)
def test_wrong_layers_are_named(layers, message):
    with pytest.raises(LayerError, match=message):
        find_layers(TwoConvs(), layers)


def test_a_model_without_convolutions_says_so():
    with pytest.raises(LayerError, match="Linear has no Conv2d layer; name the layers to explain"):
        find_layers(nn.Linear(2, 2), None)
