"""What influence is given: networks of all kinds, which stay as they are, and bad input."""

import pytest
import torch
from influence_cases import SmallNet, half_square, small_case
from torch import nn
from torch.utils.data import DataLoader

from captum_blackbox.errors import DataError, InputError, LayerError, ShapeError, TargetError
from captum_blackbox.influence import InfluenceFunction


class Branching(SmallNet):
    """Decides by values, which vmap does not take."""

    def forward(self, images):
        return super().forward(images) * (2.0 if images.detach().sum() > 1e9 else 1.0)


def state_of(model):
    return {
        "training": [module.training for module in model.modules()],
        "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "grad": [p.grad for p in model.parameters()],
        "inplace": [getattr(module, "inplace", None) for module in model.modules()],
        "same": [id(p) for p in model.parameters()],
        "weights": {name: each.clone() for name, each in model.state_dict().items()},
    }


def assert_untouched(model, before):
    now = state_of(model)
    weights, kept = now.pop("weights"), before.pop("weights")
    assert now == before
    assert all(torch.equal(weights[name], kept[name]) for name in kept)


@pytest.mark.parametrize("solver", ["exact", "cg", "lissa"])
def test_the_model_is_left_as_it_was(solver):
    model, data, tests = small_case()
    model.train()
    model.dropout.eval()
    model.conv.weight.requires_grad_(False)
    before, chance = state_of(model), torch.get_rng_state()
    tests.requires_grad_()
    function = InfluenceFunction(model, data, solver=solver, hessian_reg=1.0)
    function.influence(tests)
    function.of_points(torch.tensor([[0], [1], [2]]), torch.tensor([0, 1, 2]))(tests).sum()
    assert_untouched(model, before)
    assert tests.grad is None
    assert torch.equal(torch.get_rng_state(), chance)


def test_the_model_is_left_as_it_was_after_an_error():
    model, data, tests = small_case()
    model.train()
    before = state_of(model)
    with pytest.raises(TargetError):
        InfluenceFunction(model, data).influence(tests, [0, 1, 7])
    data[5] = (torch.zeros(2, 4, 4, dtype=torch.float64), 0)
    with pytest.raises(DataError):
        InfluenceFunction(model, data).influence(tests)
    assert_untouched(model, before)


def test_a_model_in_training_mode_is_judged_in_evaluation_mode():
    model, data, tests = small_case()
    expected = InfluenceFunction(model, data).influence(tests)
    assert torch.equal(InfluenceFunction(model.train(), data).influence(tests), expected)


def test_it_works_without_gradients_and_in_inference_mode():
    model, data, tests = small_case()
    expected = InfluenceFunction(model, data).influence(tests)
    with torch.no_grad():
        assert torch.equal(InfluenceFunction(model, data).influence(tests), expected)
    with torch.inference_mode():
        function = InfluenceFunction(model, data)
        assert torch.equal(function.influence(tests.clone()), expected)
        branching = Branching().double().eval()
        branching.load_state_dict(model.state_dict())
        found = InfluenceFunction(branching, data).influence(tests.clone())
    torch.testing.assert_close(found.clone(), expected)


def test_weights_are_those_of_when_it_was_made():
    model, data, tests = small_case()
    targets = [0, 1, 2]
    function = InfluenceFunction(model, data)
    expected = InfluenceFunction(model, data).influence(tests, targets)
    model.linear.weight.data.mul_(3)
    torch.testing.assert_close(function.influence(tests, targets), expected)


def test_a_network_that_vmap_does_not_take_goes_point_by_point():
    model, data, tests = small_case()
    branching = Branching().double().eval()
    branching.load_state_dict(model.state_dict())
    numbers, targets = torch.tensor([[0], [1], [2]]), torch.tensor([0, 1, 2])
    results = []
    for network in (model, branching):
        function = InfluenceFunction(network, data)
        leaf = tests.clone().requires_grad_()
        summed = function.of_points(numbers, targets)
        gradient = torch.autograd.grad(summed(leaf).sum(), leaf)[0]
        results.append((function.influence(tests), gradient))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_precision_on_the_models_device(dtype, device):
    """Only what is given is rounded to half precision; nothing is calculated in it."""
    model, data, tests = small_case()
    model.to(dtype)
    tests = tests.to(dtype)
    expected = InfluenceFunction(model.double(), data).influence(tests, [0, 1, 2]).to(device)
    function = InfluenceFunction(model.to(device, dtype), data)
    found = function.influence(tests.to(device), [0, 1, 2])
    assert found.dtype == torch.float64
    rounding = torch.finfo(torch.float32).eps
    assert (found - expected).abs().max() <= 200 * rounding * expected.abs().max()


def test_autocast_around_it_changes_nothing():
    model, data, tests = small_case(dtype=torch.float32)
    function = InfluenceFunction(model, data)
    expected = function.influence(tests, [0, 1, 2])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(InfluenceFunction(model, data).influence(tests, [0, 1, 2]), expected)


def test_buffers_of_whole_numbers_stay_whole():
    class Choosing(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("order", torch.arange(15, -1, -1))
            self.linear = nn.Linear(16, 3, dtype=torch.float64)

        def forward(self, images):
            return self.linear(images.flatten(1)[:, self.order])

    model, (_, data, tests) = Choosing(), small_case()
    plain = nn.Sequential(nn.Flatten(), model.linear)
    turned = [(x.flip(1, 2), label) for x, label in data]
    expected = InfluenceFunction(plain, turned).influence(tests.flip(2, 3))
    torch.testing.assert_close(InfluenceFunction(model, data).influence(tests), expected)


def test_the_first_layer_may_work_in_place():
    layers = [nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(16, 3, dtype=torch.float64)]
    _, data, tests = small_case()
    function = InfluenceFunction(nn.Sequential(*layers), data)
    leaf = tests.clone().requires_grad_()
    summed = function.of_points(torch.tensor([[0], [1], [2]]), torch.tensor([0, 1, 2]))
    (gradient,) = torch.autograd.grad(summed(leaf).sum(), leaf)
    assert torch.equal(gradient != 0, tests > 0)


def test_targets_of_any_type_are_placed_where_the_losses_are():
    model, data, tests = small_case(dtype=torch.float32)
    expected = InfluenceFunction(model, data).influence(tests, [0, 1, 2])
    small = [(x, torch.tensor(label, dtype=torch.uint8)) for x, label in data]
    found = InfluenceFunction(model, small).influence(tests, torch.tensor([0, 1, 2]).int())
    assert torch.equal(found, expected)

    def same_precision(outputs, targets):
        assert targets.dtype == outputs.dtype
        return half_square(outputs, targets)

    wide = [(x, torch.zeros(3, dtype=torch.float64)) for x, _ in data]
    function = InfluenceFunction(model, wide, loss_fn=same_precision)
    assert function.influence(tests, torch.zeros(3, 3).double()).shape == (3, 12)


def test_the_bar_counts_training_points(capsys):
    model, data, tests = small_case()
    InfluenceFunction(model, data, batch_size=5).influence(tests, show_progress=True)
    assert "influence: 100%" in (shown := capsys.readouterr().err) and "12/12" in shown
    InfluenceFunction(model, data, batch_size=5).influence(tests)
    assert capsys.readouterr().err == ""


def test_weights_that_two_layers_share_count_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(3, 3, bias=False, dtype=torch.float64)
            self.second = nn.Linear(3, 3, bias=False, dtype=torch.float64)
            self.second.weight = self.first.weight

        def forward(self, x):
            return self.second(self.first(x).tanh())

    model = Tied()
    data = [(torch.randn(3, dtype=torch.float64), number % 3) for number in range(5)]
    whole, named = (InfluenceFunction(model, data, layers=layers) for layers in (None, ["second"]))
    assert whole.function.count == named.function.count == 9
    tests = torch.randn(2, 3, dtype=torch.float64)
    torch.testing.assert_close(whole.influence(tests), named.influence(tests))


def refused(error, match, *, model=None, data=None, **settings):
    own, points, _ = small_case()
    with pytest.raises(error, match=match):
        InfluenceFunction(model or own, points if data is None else data, **settings)


def test_settings_that_cannot_be_used_are_refused(as_users_call):
    _, data, _ = small_case()
    refused(InputError, "hessian_reg must be 0 or more, got -1", hessian_reg=-1)
    refused(InputError, "hessian_reg must be 0 or more, got nan", hessian_reg=float("nan"))
    refused(InputError, "batch_size must be at least 1, got 0", batch_size=0)
    refused(InputError, "sign is one of 'helpful', 'upweight', got 'minus'", sign="minus")
    refused(InputError, "give loader.dataset", data=DataLoader(data))
    refused(InputError, "train_dataset is empty", data=[])
    refused(
        InputError,
        "needs a length and numbered items, got generator",
        data=iter(data) and (d for d in data),
    )
    refused(LayerError, "no layer 'lineer'; the nearest names are 'linear'", layers=["lineer"])
    refused(LayerError, "have no parameters", layers=["dropout"])
    refused(LayerError, "no parameters", model=nn.ReLU())
    loss = nn.CrossEntropyLoss()
    refused(InputError, "got one with reduction='mean'; give reduction='none'", loss_fn=loss)


def asked(error, match, *, tests=None, targets=None, data=None, **settings):
    model, points, some = small_case()
    with pytest.raises(error, match=match):
        InfluenceFunction(model, data or points, **settings).influence(
            some if tests is None else tests, targets
        )


def test_data_that_cannot_be_used_is_refused(as_users_call):
    image = torch.zeros(1, 4, 4, dtype=torch.float64)
    asked(DataError, r"a pair \(input, target\), got Tensor for item 0", data=[image])
    asked(DataError, "floating-point tensors, got torch.uint8", data=[(image.byte(), 0)])
    asked(
        DataError, "training points 0 … 1 cannot be stacked", data=[(image, 0), (image[:, :3], 0)]
    )
    asked(TargetError, "target 3 is out of range for 3 classes", data=[(image, 3)])
    asked(TargetError, "got torch.float64 of shape", data=[(image, 0.5)])


def test_inputs_that_cannot_be_used_are_refused(as_users_call):
    _, _, tests = small_case()
    asked(ShapeError, "floating-point tensor", tests=tests.long())
    asked(ShapeError, "at least one input", tests=tests[:0])
    for value in (torch.nan, -torch.inf):
        broken = tests.clone()
        broken[1, 0, 2, 2] = value
        asked(InputError, r"image 1 is not finite \(1 of 3\)", tests=broken)
    asked(TargetError, "expected 3 class numbers", targets=[0, 1])
    asked(TargetError, "target -1 is out of range", targets=[0, 1, -1])
    asked(
        ShapeError,
        r"a loss per point, \(3,\), got shape \(3, 3\)",
        loss_fn=lambda o, t: o * t[:, None],
    )
    model, data, tests = small_case()
    for k in (0, 13):
        with pytest.raises(InputError, match=f"between 1 and 12 training points, got {k}"):
            InfluenceFunction(model, data).most_influential(tests, k=k)
    column = nn.Sequential(nn.Flatten(), nn.Linear(16, 1, dtype=torch.float64))
    with pytest.raises(ShapeError, match=r"needs logits \(N, classes\)"):
        InfluenceFunction(column, data).influence(tests)
    assert InfluenceFunction(
        column, [(x, torch.ones(1)) for x, _ in data], loss_fn=half_square
    ).influence(tests, torch.zeros(3, 1)).shape == (3, 12)
