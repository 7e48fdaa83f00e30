"""Each check on explanations whose error is known by hand."""

import numpy as np
import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, LayerGradCam, Saliency
from networks import State, TwoConvs
from torch import nn

from captum_blackbox.errors import InputError, LayerError, ShapeError
from captum_blackbox.metrics.axioms import (
    AXIOMS,
    class_sensitivity,
    completeness,
    dummy,
    implementation_invariance,
    input_shift,
    linearity,
    parameter_randomisation,
    sensitivity,
    symmetry,
)
from captum_blackbox.testing import small_network

ON_OWN_MODEL = (
    completeness,
    sensitivity,
    linearity,
    input_shift,
    class_sensitivity,
    parameter_randomisation,
)


def linear_model(weight, bias=0.0):
    """Scores are weighted sums of the two pixels of a one-channel image."""
    weight = torch.tensor(weight)
    model = nn.Sequential(nn.Flatten(), nn.Linear(*weight.shape[::-1]))
    model[1].weight.data, model[1].bias.data = weight, torch.full((len(weight),), bias)
    return model


def says(function):
    """An explainer of values (inputs, target) -> map, whatever the model."""
    return lambda model: function


def image(*values):
    return torch.tensor(values).view(1, 1, 1, -1)


def gradient(model):
    return lambda inputs, target: Saliency(model).attribute(inputs, target, abs=False)


def test_completeness_by_hand():
    model, x = linear_model([[2.0, 1.0], [0.0, 0.0]], bias=1.0), image(1.0, 3.0)
    half = says(lambda inputs, target: inputs.new_full(inputs.shape, 2.0))  # adds up to 4
    result = completeness(half, model=model, inputs=x, target=0)  # the score is 6, black 1
    assert result.error == pytest.approx(1 / 5) and result.holds is False
    assert result.reason == ("the map of image 0 adds up to 4, the change of the score is 5")
    assert completeness(half, model=model, inputs=x, target=0, tolerance=0.21).holds
    score = completeness(half, model=model, inputs=x, target=0, total="score")
    assert score.error == pytest.approx(2 / 6)
    other = completeness(half, model=model, inputs=x, target=0, baseline=image(0.0, 1.0))
    assert other.error == pytest.approx(0)  # 6 - 2
    assert other.counter_example == {}
    flat = completeness(half, model=model, inputs=x, target=1)
    assert flat.holds is None and "no image changes the score" in flat.reason


def test_a_counter_example_can_be_fed_again():
    result = completeness(InputXGradient)
    again = result.counter_example
    x = again["image"][None]
    maps = InputXGradient(again["model"]).attribute(x.requires_grad_(), again["target"])
    assert float(maps.detach().sum()) == pytest.approx(again["sum"])
    scores = again["model"](torch.cat([x, 0 * x])).detach()[:, again["target"]]
    assert float(scores[0] - scores[1]) == pytest.approx(again["expected"])


def test_sensitivity_by_hand():
    # Pixel 1 is worth 1 of 4 and ignored by the explainer.
    model, x = linear_model([[4.0, 1.0]]), image(1.0, 1.0)
    first = says(lambda inputs, target: torch.tensor([1.0, 0.0]).expand(inputs.shape))
    result = sensitivity(first, model=model, inputs=x, target=0)
    assert result.error == pytest.approx(1 / 4) and result.holds is False
    assert result.counter_example["channel_and_pixel"] == [0, 0, 1]
    assert result.counter_example["image"].flatten().tolist() == [0, 1]
    assert "has no importance" in result.reason
    met = sensitivity(gradient, model=model, inputs=x, target=0)
    assert met.holds and met.reason.startswith("each of 2 values")
    # From a bright baseline nothing differs.
    same = sensitivity(gradient, model=model, inputs=x, target=0, baseline=x[0])
    assert same.holds is None


def test_sensitivity_is_of_single_channels_whatever_the_scale_of_the_map():
    # Channel 1 is worth 1 of 4 and ignored by the explainer, which sees channel 0 of that pixel.
    model, x = linear_model([[4.0, 1.0]]), torch.ones(1, 2, 1, 1)
    first = says(lambda inputs, target: torch.tensor([1.0, 0.0]).view(2, 1, 1).expand(inputs.shape))
    assert sensitivity(first, model=model, inputs=x, target=0).error == pytest.approx(1 / 4)
    faint = says(lambda inputs, target: torch.full_like(inputs, 1e-12))
    assert sensitivity(faint, model=model, inputs=x, target=0).holds


def test_every_probe_is_explained_for_the_class_of_its_image():
    asked = []

    def recorder(inputs, target):
        asked.append(target.tolist())
        return inputs

    model, x = linear_model([[4.0, 1.0], [1.0, 4.0]]), image(1.0, 1.0).expand(2, -1, -1, -1)
    sensitivity(says(recorder), model=model, inputs=x, target=[1, 0])
    assert asked == [[1, 1, 0, 0]]


def test_a_map_without_channels_is_looked_at_by_pixel():
    def one_channel(model):
        return lambda inputs, target: gradient(model)(inputs, target).abs().sum(1, keepdim=True)

    model = small_network(relu=False)
    for factory in (one_channel, gradient):
        assert sensitivity(factory, model=model).holds
        assert dummy(factory).holds


def test_dummy_by_hand():
    model, x = linear_model([[4.0, 0.0]]), image(1.0, 1.0)
    ignored = torch.tensor([[0, 1]])
    told = {"model": model, "inputs": x, "target": 0, "ignored": ignored}
    wrong = says(lambda inputs, target: torch.tensor([4.0, -1.0]).expand(inputs.shape))
    result = dummy(wrong, **told)
    assert result.error == pytest.approx(1 / 4) and result.counter_example["pixel"] == [0, 1]
    assert dummy(gradient, **told).error == 0
    assert dummy(gradient, **told, tolerance=0.0).holds
    assert dummy(wrong, **{**told, "ignored": -ignored}).error == pytest.approx(1 / 4)
    maps = torch.tensor([[4.0, -1.0], [400.0, -40.0]]).view(2, 1, 1, 2)  # each by its own largest
    twice = {**told, "inputs": x.expand(2, -1, -1, -1)}
    assert dummy(says(lambda inputs, target: maps), **twice).error == pytest.approx(1 / 4)
    assert dummy(says(lambda inputs, target: 0 * inputs), **told).holds


def test_dummies_have_to_be_some():
    model, x = linear_model([[4.0, 0.1]]), image(1.0, 1.0)
    with pytest.raises(InputError, match=r"the pixels called ignored change a score by 0\.1"):
        dummy(gradient, model=model, inputs=x, ignored=torch.tensor([[0, 1]]))
    with pytest.raises(InputError, match="come together"):
        dummy(gradient, model=model, inputs=x)
    with pytest.raises(ShapeError, match=r"expected ignored pixels \(1, 2\), got \(2, 1\)"):
        dummy(gradient, model=model, inputs=x, ignored=torch.ones(2, 1))


def test_implementation_invariance_by_hand():
    """The first weight of the last layer is 4 here and 2 there."""
    x = image(1.0, 2.0)
    one = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    other = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    one[1].weight.data, other[1].weight.data = torch.eye(2), 2 * torch.eye(2)
    one[2].weight.data, other[2].weight.data = (
        torch.tensor([[4.0, 1.0]]),
        torch.tensor([[2.0, 0.5]]),
    )

    def last_weights(model):
        return lambda inputs, target: model[2].weight.detach().view(1, 1, 1, 2)

    pairs = {"mine": (one, other)}
    result = implementation_invariance(last_weights, pairs=pairs, inputs=x, target=0)
    assert result.error == pytest.approx(0.5) and result.details == {"mine": pytest.approx(0.5)}
    assert result.counter_example["pair"] == "mine"
    assert implementation_invariance(gradient, pairs=pairs, inputs=x, target=0).error == 0
    other[2].weight.data *= 2
    with pytest.raises(InputError, match="the networks of 'mine' differ by 5"):
        implementation_invariance(gradient, pairs=pairs, inputs=image(1.0, 1.0), target=0)


def test_linearity_by_hand():
    model, x = linear_model([[4.0, 0.0], [0.0, 1.0]]), image(1.0, 1.0)
    told = {"model": model, "inputs": x}
    assert linearity(gradient, **told).error == 0
    # |2f - g| = (8, 1), and 2|f| - |g| = (8, -1).
    assert linearity(Saliency, **told).error == pytest.approx(2 / 8)
    # |f + g| = (4, 1) is linear after all.
    assert linearity(Saliency, **told, factors=(1.0, 1.0)).error == 0
    for factory in (Saliency, gradient):
        assert linearity(factory, **told, classes=(1, 1)).error == 0  # 2g - g


def test_symmetry_by_hand():
    model, x = linear_model([[3.0, 3.0]]), image(1.0, 5.0)
    told = {"model": model, "inputs": x, "pairs": torch.tensor([[[0, 0], [0, 1]]])}
    assert symmetry(InputXGradient, **told).error == 0  # the second pixel becomes 1
    lopsided = says(lambda inputs, target: torch.tensor([2.0, 1.0]) * inputs)
    result = symmetry(lopsided, **told)
    assert result.error == pytest.approx(0.5)
    assert result.counter_example["image"].flatten().tolist() == [1, 1]
    with pytest.raises(InputError, match=r"pixels \(0, 0\) and \(0, 1\) are exchanged"):
        symmetry(gradient, **{**told, "model": linear_model([[3.0, 2.0]])})
    with pytest.raises(InputError, match="a score changes by 4 when"):  # it falls from 17 to 13
        unequal = {"model": linear_model([[3.0, 2.0]]), "inputs": image(5.0, 1.0)}
        symmetry(gradient, **{**told, **unequal})
    assert symmetry(says(lambda inputs, target: 0 * inputs), **told).error == 0
    with pytest.raises(InputError, match="come together"):
        symmetry(gradient, model=model, inputs=x)
    with pytest.raises(ShapeError, match=r"expected pairs of pixels \(pairs, 2, 2\)"):
        symmetry(gradient, **{**told, "pairs": torch.zeros(2, 2, dtype=torch.long)})


def test_symmetry_is_of_single_channels():
    model, x = linear_model([[3.0, 3.0, 1.0, 1.0]]), torch.ones(1, 2, 1, 2)
    maps = torch.tensor([4.0, 4.0, 2.0, 1.0]).view(1, 2, 1, 2)  # the second channel differs by 1
    pairs = torch.tensor([[[0, 0], [0, 1]]])
    result = symmetry(says(lambda inputs, target: maps), model=model, inputs=x, pairs=pairs)
    assert result.error == pytest.approx(1 / 4)


def test_input_shift_by_hand():
    model, x = linear_model([[1.0, 2.0]]), image(1.0, 3.0)
    told = {"model": model, "inputs": x, "target": 0}
    assert input_shift(gradient, **told).error == 0
    # x * w is (1, 6), and (2, 8) when 1 is added.
    assert input_shift(InputXGradient, **told).error == pytest.approx(2 / 8)
    assert input_shift(InputXGradient, **told, shift=-1.0).error == pytest.approx(2 / 6)
    moved = input_shift(InputXGradient, **told).counter_example["shifted_model"]
    assert float(moved(x + 1).detach()) == pytest.approx(7)
    model[1].bias = None  # then it gets one
    assert input_shift(gradient, **told).error == 0
    assert input_shift(InputXGradient, **told).error == pytest.approx(2 / 8)


def test_a_shift_that_padding_sees_cannot_be_undone():
    result = input_shift(gradient, model=small_network(padding=1))
    assert result.holds is None and "it pads" in result.reason
    nothing = nn.Sequential(nn.Flatten(), nn.Softmax(1))
    result = input_shift(gradient, model=nothing, inputs=image(1.0, 2.0))
    assert result.holds is None and "no convolution or linear layer" in result.reason


def test_class_sensitivity_by_hand():
    x = torch.rand(3, 1, 2, 5)
    model = linear_model(torch.randn(2, 10).tolist())
    same = says(lambda inputs, target: inputs)
    assert class_sensitivity(same, model=model, inputs=x).error == pytest.approx(1)

    def turned(inputs, target):
        return inputs * (2 * target - 1).view(-1, 1, 1, 1)

    assert class_sensitivity(says(turned), model=model, inputs=x).error == pytest.approx(1)

    def flat_for_the_second(inputs, target):
        return inputs * (target == 0).view(-1, 1, 1, 1)

    result = class_sensitivity(says(flat_for_the_second), model=model, inputs=x)
    assert result.holds and result.error == 0


def test_class_sensitivity_is_the_mean_over_images_of_the_most_and_the_least_likely_class():
    x = torch.stack([torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -2.0])]).view(2, 1, 1, 2)
    model = linear_model([[1.0, 1.0], [-1.0, -1.0], [0.0, 0.0]])
    asked = []

    def alike_for_the_first_image(inputs, target):
        asked.append(target.tolist())
        maps = inputs.clone()
        maps[1] = maps[1] if len(asked) == 1 else 1.0
        return maps

    result = class_sensitivity(says(alike_for_the_first_image), model=model, inputs=x)
    assert asked == [[0, 1], [1, 0]]
    assert result.error == pytest.approx(0.5)


def test_a_layer_is_found_by_its_name_in_the_weighted_sum():
    named = linearity(lambda model: LayerGradCam(model, model.features[2]))
    found = linearity(
        lambda model: LayerGradCam(
            model, [m for m in model.modules() if isinstance(m, nn.Conv2d)][1]
        )
    )
    assert named.error == found.error is not None
    model, x = linear_model([[4.0, 0.0], [0.0, 1.0]]), image(1.0, 1.0)

    def first_weights(model):  # of a Sequential, by number
        return lambda inputs, target: model[1].weight[0].detach().view(1, 1, 1, 2)

    assert linearity(first_weights, model=model, inputs=x, factors=(1.0, 1.0)).error == 0.5
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        linearity(lambda model: model.nothing)


def test_one_score_has_no_other_class():
    model, x = linear_model([[4.0, 1.0]]), image(1.0, 1.0)
    for check in (class_sensitivity, linearity):
        result = check(gradient, model=model, inputs=x)
        assert result.holds is None and "one score only" in result.reason


def test_sensitivity_explains_the_class_and_the_images_that_it_is_given():
    seen = []

    def recorder(model):
        def explained(inputs, target):
            seen.append((len(inputs), sorted(set(target.tolist()))))
            return inputs

        return explained

    sensitivity(recorder, target=2)
    assert seen == [(64, [2]), (16, [2])]
    seen.clear()
    sensitivity(recorder, inputs=torch.rand(3, 3, 7, 7, dtype=torch.float64))
    assert seen == [(48, [0, 1, 2]), (16, [0])]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_map_that_is_always_flat_depends_on_nothing(value):
    flat = says(lambda inputs, target: torch.full_like(inputs, value))
    for check in (class_sensitivity, parameter_randomisation):
        result = check(flat)
        assert result.holds is False and result.error == 1


def test_parameter_randomisation_goes_down_and_stays_random():
    """The map is the first weight of each layer, spread: one part changes in each step."""
    seen = []

    def recorder(model):
        seen.append([layer.weight.detach().clone() for layer in (model[1], model[3])])
        return lambda inputs, target: inputs

    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    result = parameter_randomisation(recorder, model=model, inputs=torch.rand(2, 1, 2, 2))
    assert list(result.details.items()) == [("3", pytest.approx(1)), ("1", pytest.approx(1))]
    assert result.holds is False and "down to '3'" in result.reason
    before, first, second = seen
    assert torch.equal(before[0], first[0]) and not torch.equal(before[1], first[1])
    assert torch.equal(first[1], second[1]) and not torch.equal(first[0], second[0])
    only = parameter_randomisation(
        recorder, model=model, inputs=torch.rand(2, 1, 2, 2), layers=["1"]
    )
    assert list(only.details) == ["1"]


def test_weights_are_drawn_by_the_seed_and_survive_an_explainer_that_writes_to_its_model():
    seen = []

    def destroyer(model):
        seen.append(model[3].weight.detach().clone())
        model[3].weight.data.zero_()
        return lambda inputs, target: inputs

    x = torch.rand(2, 1, 2, 2)
    for seed in (0, 0, 1):
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
        model[3].weight.data = torch.arange(6.0).view(2, 3)
        parameter_randomisation(destroyer, model=model, inputs=x, target=0, seed=seed)
    drawn = seen[1::3]
    assert torch.equal(seen[2], drawn[0]) and bool((drawn[0] != 0).all())
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_weights_are_drawn_with_their_mean_and_spread():
    drawn = []

    def recorder(model):
        drawn.append(model[1].weight.detach().clone())
        return lambda inputs, target: inputs

    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 90))
    model[1].weight.data = 5 + 2 * torch.randn(90, 100)
    parameter_randomisation(recorder, model=model, inputs=torch.rand(2, 1, 10, 10))
    assert float(drawn[1].mean()) == pytest.approx(5, abs=0.2)
    assert float(drawn[1].std()) == pytest.approx(2, abs=0.2)


def test_layers_to_randomise_have_weights():
    model, x = linear_model([[1.0, 2.0]]), image(1.0, 2.0)
    with pytest.raises(LayerError, match="layer '0' has no weights of its own"):
        parameter_randomisation(gradient, model=model, inputs=x, layers=["0"])
    with pytest.raises(LayerError, match="Softmax has no weights to randomise"):
        parameter_randomisation(
            gradient, model=nn.Softmax(1), inputs=image(1.0, 2.0)[:, 0, 0, :, None, None]
        )


@pytest.mark.parametrize("check", ON_OWN_MODEL)
def test_a_model_of_your_own_is_left_as_it_was(check):
    model = TwoConvs().train()
    model.conv1.weight.grad = torch.ones_like(model.conv1.weight)
    before, x = State(model), torch.rand(3, 3, 8, 8)
    kept, random = x.clone(), torch.get_rng_state()
    first = check(IntegratedGradients, model=model, inputs=x)
    torch.set_rng_state(random)
    second = check(IntegratedGradients, model=model, inputs=x)
    assert State(model).differences(before) == []
    assert torch.equal(x, kept) and not x.requires_grad
    assert torch.equal(torch.get_rng_state(), random)
    assert (first.error, first.reason) == (second.error, second.reason)


@pytest.mark.parametrize("check", ON_OWN_MODEL)
def test_a_model_of_your_own_needs_images_of_your_own(check):
    with pytest.raises(InputError, match="a model of your own needs images of your own"):
        check(gradient, model=TwoConvs())


@pytest.mark.parametrize("check", AXIOMS.values())
def test_random_numbers_of_the_user_are_left_alone(check):
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002

    def drawing(model):
        torch.rand(3), np.random.rand(3)  # noqa: NPY002
        return gradient(model)

    check(drawing)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


@pytest.mark.parametrize("draw", [torch.rand, np.random.rand], ids=["torch", "numpy"])
def test_an_explainer_that_draws_is_seeded(draw):
    def drawing(inputs, target):
        return torch.as_tensor(draw(*inputs.shape))

    errors = []
    for seed in (0, 0, 1):
        model, x = linear_model([[1.0, 2.0]]), image(1.0, 3.0)
        told = {"model": model, "inputs": x, "target": 0, "seed": seed}
        errors.append(completeness(says(drawing), **told).error)
    assert errors[0] == errors[1] != errors[2]
    assert input_shift(says(drawing)).error == 0  # the same numbers for both networks


def test_an_explainer_may_write_to_its_images_and_is_fitted_to_those_given():
    data_seen = []

    def writer(model, data):
        data_seen.append(data)
        return lambda inputs, target: inputs.mul_(0)

    model, x = linear_model([[2.0, 1.0]]), image(1.0, 3.0)
    result = completeness(writer, model=model, inputs=x, target=0)
    assert x.flatten().tolist() == [1, 3] and result.counter_example["expected"] == 5
    assert torch.equal(data_seen[0], x)


def test_maps_of_another_size_speak_of_no_pixel():
    def small(model):
        return LayerGradCam(model, [m for m in model.modules() if isinstance(m, nn.Conv2d)][-1])

    for check in (dummy, sensitivity, symmetry):
        result = check(small)
        assert result.holds is None and "other places than the image (3, 7, 7)" in result.reason
    assert completeness(small).holds is not None


@pytest.mark.parametrize(
    ("maps", "error", "message"),
    [
        (lambda inputs, target: inputs / 0, InputError, "NaN or infinite"),
        (lambda inputs, target: inputs[:1], ShapeError, r"a map for each of 16 images, got \(1,"),
        (lambda inputs, target: None, ShapeError, "got NoneType"),
        (lambda inputs, target: (inputs, inputs), ShapeError, "got tuple"),
    ],
)
def test_what_is_no_map_is_refused(maps, error, message):
    with pytest.raises(error, match=message):
        completeness(says(maps))


def test_a_tuple_of_one_map_is_a_map():
    assert completeness(says(lambda inputs, target: (inputs,))).error > 0


def test_on_a_device(device):
    model = TwoConvs().to(device)
    x = torch.rand(3, 3, 8, 8, device=device)
    for check in ON_OWN_MODEL:
        assert check(IntegratedGradients, model=model, inputs=x).raised == ""
