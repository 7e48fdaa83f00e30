"""Which concepts made a prediction: sums, by-hand class activation maps, and refusals."""

import re

import pytest
import torch
from naive_dissection import random_concepts
from networks import GapLinear, RunsTwice, SideBranch, State, TwoConvs
from torch import nn
from torch.nn.functional import interpolate
from torch.testing import assert_close

from captum_blackbox import Dissection, NetworkDissection
from captum_blackbox.concepts import SceneConcepts
from captum_blackbox.demo import load_demo_network
from captum_blackbox.dissection.local_explanation import (
    NO_CONCEPT,
    ConceptShare,
    LocalExplanation,
)
from captum_blackbox.errors import (
    ArtifactError,
    ExplanationWarning,
    InputError,
    LayerError,
    ShapeError,
    TargetError,
)

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def dissection_of(model, layer, dtype=torch.float64, **settings):
    """Return a dissection with a result in which some units detect something and some do not."""
    settings = {"quantile": 0.1, "iou_threshold": 0.13, "upsample": "resize", **settings}
    dissection = NetworkDissection(model.to(dtype), layer, **settings)
    dissection.dissect(random_concepts(), show_progress=False)
    return dissection


def gap(units=6, classes=3):
    torch.manual_seed(2)
    return GapLinear(units, classes)


def images(count=4, dtype=torch.float64):
    return torch.rand(count, 3, 12, 10, dtype=dtype)


def scores_of(model, x, target):
    with torch.no_grad():
        return model.eval()(x)[torch.arange(len(x)), target]


@pytest.fixture(scope="module")
def gap_dissection():
    torch.manual_seed(0)
    dissection = dissection_of(gap(), "relu")
    concepts = dissection.explain(images(1)).concepts
    assert NO_CONCEPT in concepts and len(set(concepts)) > 2  # the tests are about something
    return dissection


def test_contributions_and_bias_are_the_score(gap_dissection):
    x, target = images(), torch.tensor([0, 2, 1, 2])
    explanation = gap_dissection.explain(x, target)
    expected = scores_of(gap_dissection.model, x, target)
    assert_close(explanation.scores, expected, **EXACT)
    assert_close(explanation.contributions.sum(1) + explanation.bias, expected, **EXACT)
    assert_close(explanation.residual, torch.zeros(4).double(), **EXACT)
    assert explanation.is_exact.tolist() == [True] * 4
    assert explanation.targets.tolist() == target.tolist()


def test_they_are_weights_times_mean_activations(gap_dissection):
    model, x, target = gap_dissection.model, images(), torch.tensor([0, 2, 1, 2])
    with torch.no_grad():
        maps = model.relu(model.conv(x))
    weights = model.linear.weight[target].detach()
    explanation = gap_dissection.explain(x, target)
    assert_close(explanation.contributions, weights * maps.mean((2, 3)), **EXACT)
    assert_close(explanation.bias, model.linear.bias[target].detach(), **EXACT)
    cells = weights[:, :, None, None] * maps / 120
    assert_close(explanation.cells, cells, **EXACT)


def test_the_maps_of_all_concepts_are_the_class_activation_map(gap_dissection):
    model, x = gap_dissection.model, images()
    explanation = gap_dissection.explain(x, 1)
    with torch.no_grad():
        maps = model.relu(model.conv(x))
    cam = torch.einsum("u,nuhw->nhw", model.linear.weight[1].detach(), maps)[:, None] / 120
    names = list(explanation.by_concept())
    assert_close(sum(explanation.maps(name) for name in names), cam, **EXACT)
    assert_close(explanation.maps(names), cam, **EXACT)
    named = [name for name in names if name != NO_CONCEPT]
    assert_close(explanation.maps(), explanation.maps(named), **EXACT)
    assert_close(explanation.maps() + explanation.maps(NO_CONCEPT), cam, **EXACT)
    assert_close(explanation.maps([named[0]] * 2), explanation.maps(named[0]), **EXACT)


def test_concepts_sum_as_units_do(gap_dissection):
    explanation = gap_dissection.explain(images())
    shares = explanation.by_concept()
    assert_close(sum(shares.values()), explanation.contributions.sum(1), **EXACT)
    for name, each in shares.items():
        units = [unit for unit, concept in enumerate(explanation.concepts) if concept == name]
        assert_close(each, explanation.contributions[:, units].sum(1), **EXACT)


def test_concepts_are_those_of_the_result(gap_dissection):
    concepts = gap_dissection.explain(images(1)).concepts
    for unit, concept in zip(gap_dissection.result.units(), concepts, strict=True):
        assert concept == (unit.label if unit.iou > 0.13 else NO_CONCEPT)
    for name in set(concepts) - {NO_CONCEPT}:
        assert gap_dissection.result.units_of(name) == [
            unit for unit, concept in enumerate(concepts) if concept == name
        ]


def by_hand():
    """Two images of five units; the second in reverse."""
    contributions = torch.tensor([[2.0, -1.0, 3.0, -4.0, 0.5]])
    contributions = torch.cat([contributions, -contributions])
    return LocalExplanation(
        layer="conv",
        targets=torch.tensor([0, 0]),
        scores=contributions.sum(1) + 0.5,
        bias=torch.tensor([0.5, 0.5]),
        cells=contributions[:, :, None, None],
        concepts=("wheel", "sky", "wheel", "grass", NO_CONCEPT),
        is_exact=torch.tensor([True, True]),
    )


def test_concepts_are_ranked_by_what_they_contribute():
    explanation = by_hand()
    wheel, sky = ConceptShare("wheel", 5.0, (2, 0)), ConceptShare("sky", -1.0, (1,))
    grass = ConceptShare("grass", -4.0, (3,))
    assert explanation.ranked(0) == [wheel, ConceptShare(NO_CONCEPT, 0.5, (4,)), sky, grass]
    assert explanation.supporting(0) == [wheel]
    assert explanation.opposing(0) == [grass, sky]
    assert explanation.opposing(0, 1) == [grass]
    assert [share.concept for share in explanation.supporting(1)] == ["grass", "sky"]
    assert explanation.opposing(1) == [ConceptShare("wheel", -5.0, (0, 2))]
    assert explanation.residual.tolist() == [0.0, 0.0]


def test_a_concept_that_no_unit_has_is_refused_and_those_there_are_named():
    message = (
        "no unit of layer 'conv' has the concept 'car'; there are 'wheel', 'sky', 'grass', "
        "'(no concept)'"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        by_hand().maps("car")
    with pytest.raises(InputError, match="has the concept 'car'"):
        by_hand().maps(["sky", "car"])


# Where the rest of the network is not linear.


class Tail(nn.Module):
    """A convolution, and a tail that is given."""

    def __init__(self, *tail):
        super().__init__()
        self.conv, self.tail = nn.Conv2d(3, 4, 3, padding=1), nn.Sequential(*tail)

    def forward(self, x):
        return self.tail(self.conv(x))


POOLED = nn.AdaptiveAvgPool2d(1), nn.Flatten()
TAILS = {
    "linear": (True, lambda: (*POOLED, nn.Linear(4, 3))),
    "no pooling": (True, lambda: (nn.Flatten(), nn.Linear(480, 3))),
    "average pooling": (
        True,
        lambda: (nn.AvgPool2d(2), nn.Conv2d(4, 5, 3), *POOLED, nn.Linear(5, 3)),
    ),
    "batch norm": (True, lambda: (nn.BatchNorm2d(4), nn.Dropout(), *POOLED, nn.Linear(4, 3))),
    "relu": (False, lambda: (nn.ReLU(), *POOLED, nn.Linear(4, 3))),
    # Euler: of what scales with its input, slope times input is the value, though not linear.
    "relu without bias": (False, lambda: (nn.ReLU(), *POOLED, nn.Linear(4, 3, bias=False))),
    "max pooling": (False, lambda: (nn.MaxPool2d(2), *POOLED, nn.Linear(4, 3))),
    "deeper": (
        False,
        lambda: (nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), *POOLED, nn.Linear(5, 3)),
    ),
    "gelu": (False, lambda: (*POOLED, nn.Linear(4, 5), nn.GELU(), nn.Linear(5, 3))),
    "softmax": (False, lambda: (*POOLED, nn.Linear(4, 3), nn.Softmax(1))),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("tail", TAILS)
def test_it_knows_where_the_sum_is_exact(tail, dtype):
    is_exact, make = TAILS[tail]
    torch.manual_seed(5)
    model = Tail(*make())
    explanation = dissection_of(model, "conv", dtype).explain(images(5, dtype), 2)
    assert explanation.is_exact.tolist() == [is_exact] * 5
    scale = float(explanation.scores.abs().max())
    error = float(explanation.residual.abs().max()) / scale
    if is_exact or tail == "relu without bias":
        assert error < (1e-5 if dtype == torch.float32 else 1e-12)
    else:
        assert error > 1e-3 or tail in ("relu", "max pooling")  # homogeneous, with a bias behind
    with torch.no_grad():
        silent = model.eval().tail(torch.zeros(1, 4, 12, 10, dtype=dtype))[0, 2]
    assert_close(explanation.bias, silent.expand(5))


class Jumps(nn.Module):
    """Has the same slopes everywhere, but not the value at 0 that they lead to."""

    def forward(self, x):
        return x.mean((2, 3)) + 5 * (x.abs().amax((1, 2, 3)) > 0)[:, None]


def test_equal_slopes_do_not_make_a_sum_exact():
    explanation = dissection_of(Tail(Jumps()), "conv").explain(images(), 2)
    assert_close(explanation.residual, torch.full((4,), 5.0).double())
    assert not explanation.is_exact.any()


def test_a_reshape_that_leaves_something_out_makes_no_exact_sum():
    torch.manual_seed(6)
    for first, is_exact in ((0, True), (1, False)):
        dissection = dissection_of(
            gap(), "relu", reshape_transform=lambda output, first=first: output[:, :, first:]
        )
        explanation = dissection.explain(images(), 1)
        assert explanation.is_exact.tolist() == [is_exact] * 4
        assert bool((explanation.residual.abs() < 1e-12).all()) is is_exact


def test_a_score_that_does_not_depend_on_the_layer_owes_it_nothing():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(320, 2))
    model[2].weight.data.zero_()
    explanation = dissection_of(model, "0").explain(images())
    assert explanation.is_exact.all()
    assert not explanation.contributions.any()
    assert_close(explanation.residual, torch.zeros(4).double())


def test_the_demo_network_is_explained_exactly():
    dissection = NetworkDissection(load_demo_network(), "features.6.2", quantile=0.02)
    data = SceneConcepts(12, seed=2)
    dissection.dissect(data, show_progress=False)
    x = torch.stack([data.image(number) for number in range(3)])
    explanation = dissection.explain(x)
    with torch.no_grad():
        logits = dissection.model.eval()(x)
    assert explanation.targets.tolist() == logits.argmax(1).tolist()
    sums = sum(explanation.by_concept().values()) + explanation.bias
    assert_close(sums, logits.amax(1), rtol=0, atol=1e-5 * float(logits.abs().max()))
    assert explanation.is_exact.all()


# What can be asked.

TARGETS = [
    (None, None),
    (1, [1, 1, 1, 1]),
    ([1, 0, 2, 2], [1, 0, 2, 2]),
    (torch.tensor([1, 0, 2, 2]), [1, 0, 2, 2]),
    (torch.tensor(2), [2, 2, 2, 2]),
    (torch.tensor([2]), [2, 2, 2, 2]),
    ((1,), [1, 1, 1, 1]),
    ([(1,), (0,), (2,), (2,)], [1, 0, 2, 2]),
]


@pytest.mark.parametrize(("target", "classes"), TARGETS, ids=str)
def test_targets_in_all_forms_of_captum(gap_dissection, target, classes):
    x = images()
    if classes is None:
        with torch.no_grad():
            classes = gap_dissection.model(x).argmax(1).tolist()
    explanation = gap_dissection.explain(x, target)
    assert explanation.targets.tolist() == classes
    assert_close(explanation.scores, scores_of(gap_dissection.model, x, classes), **EXACT)


@pytest.mark.parametrize("target", [3, -1, [0, 1], torch.tensor([0, 1, 2, 3])])
def test_targets_that_do_not_fit_are_refused(gap_dissection, target):
    before = State(gap_dissection.model)
    with pytest.raises(TargetError):
        gap_dissection.explain(images(), target)
    assert not before.differences(State(gap_dissection.model))


def test_one_score_for_each_image_needs_no_target():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), *POOLED, nn.Linear(4, 1))
    x = images()
    explanation = dissection_of(model, "0").explain(x)
    assert explanation.targets.tolist() == [0, 0, 0, 0]
    with torch.no_grad():
        assert_close(explanation.scores, model(x)[:, 0], **EXACT)
    assert_close(explanation.residual, torch.zeros(4).double(), **EXACT)
    model = nn.Sequential(model, nn.Flatten(0))  # (N,)
    explanation = dissection_of(model, "0.0").explain(images())
    assert explanation.is_exact.tolist() == [True] * 4


def test_dense_outputs_take_targets_of_several_numbers():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1))
    x = images()
    explanation = dissection_of(model, "0").explain(x, (1, 5, 3))
    with torch.no_grad():
        assert_close(explanation.scores, model(x)[:, 1, 5, 3])
    assert_close(explanation.residual, torch.zeros(4).double(), **EXACT)
    with pytest.raises(TargetError):
        dissection_of(model, "0").explain(x)


def test_a_batch_is_explained_as_its_images_are(gap_dissection):
    x = images()
    together = gap_dissection.explain(x)
    for number in range(4):
        alone = gap_dissection.explain(x[number : number + 1])
        assert_close(together.cells[number], alone.cells[0])
        assert_close(together.scores[number], alone.scores[0])


def test_further_arguments_reach_the_model():
    class Scaled(GapLinear):
        def forward(self, x, factor=1.0):
            return super().forward(x) * factor

    torch.manual_seed(1)
    dissection = dissection_of(Scaled(), "relu")
    x = images()
    plain = dissection.explain(x, 1)
    scaled = dissection.explain(x, 1, additional_forward_args=2.5)
    assert_close(scaled.contributions, 2.5 * plain.contributions, **EXACT)
    assert_close(scaled.bias, 2.5 * plain.bias, **EXACT)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_it_can_be_asked_in_any_mode(gap_dissection, mode):
    x = images()
    expected = gap_dissection.explain(x, 1)
    with mode():
        found = gap_dissection.explain(x.clone(), 1)
    assert_close(found.cells, expected.cells, **EXACT)
    assert not found.cells.requires_grad and not found.scores.requires_grad
    assert not found.bias.requires_grad


def test_the_network_is_left_as_it_was():
    model = TwoConvs(inplace=True).double()
    dissection = dissection_of(model, "conv2", iou_threshold=0.0)
    model.train()
    model.conv1.weight.requires_grad_(False)
    model(images()).sum().backward()
    x = images().requires_grad_()
    before, random = State(model), torch.get_rng_state()
    dissection.explain(x)
    dissection.attribute(x)
    assert not before.differences(State(model))
    assert x.grad is None
    assert torch.equal(torch.get_rng_state(), random)


def test_in_place_layers_behind_do_not_change_what_is_explained():
    torch.manual_seed(0)
    plain, inplace = TwoConvs().double(), TwoConvs(inplace=True).double()
    inplace.load_state_dict(plain.state_dict())
    x = images()
    one, two = (dissection_of(each, "conv2").explain(x, 1) for each in (plain, inplace))
    assert_close(two.cells, one.cells, **EXACT)


def test_a_layer_that_runs_twice_is_refused():
    model = RunsTwice().double()
    dissection = dissection_of(SideBranch().double(), "main")
    dissection.model, dissection.layers = model, {"main": model.shared}
    before = State(model)
    with pytest.raises(LayerError, match="^only a layer that runs once"):
        dissection.explain(images())
    assert not before.differences(State(model))


def test_before_the_dissection_there_is_nothing_to_explain_by():
    dissection = NetworkDissection(gap().double(), "relu")
    message = (
        "layer 'relu' is not dissected yet; call dissect(concepts), or use(result) with one that "
        "was saved"
    )
    for ask in (dissection.explain, dissection.attribute):
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            ask(images())


def test_several_layers_are_too_many():
    dissection = NetworkDissection(gap().double(), ["conv", "relu"])
    with pytest.raises(InputError, match="^this needs one layer, and there are 'conv', 'relu'"):
        dissection.explain(images())


def test_a_saved_result_can_be_used(gap_dissection, tmp_path):
    gap_dissection.result.save(tmp_path / "a")
    again = NetworkDissection(
        gap_dissection.model, "relu", iou_threshold=0.13, quantile=0.1, upsample="resize"
    )
    assert again.use(Dissection.load(tmp_path / "a")) is again
    x = images()
    assert_close(again.explain(x).cells, gap_dissection.explain(x).cells, **EXACT)
    assert again.explain(x).concepts == gap_dissection.explain(x).concepts


def test_a_result_brings_how_it_was_made_but_not_what_counts_as_a_detector(gap_dissection):
    result = gap_dissection.result
    name = gap_dissection.layer
    other = "resize" if result.settings["upsample"] != "resize" else "receptive_field"
    again = NetworkDissection(gap_dissection.model, name, upsample=other, iou_threshold=0.5)
    settings = again.use(result).settings
    assert settings.upsample == result.settings["upsample"] != other
    assert settings.quantile == result.settings["quantile"]
    assert settings.iou_threshold == 0.5


def test_the_result_of_another_network_layer_or_basis_is_refused(gap_dissection):
    result = gap_dissection.result
    other = gap().double()
    other.conv.bias.data += 1
    for dissection, named in (
        (NetworkDissection(other, "relu"), "model is '"),
        (NetworkDissection(gap_dissection.model, "conv"), "layer is 'relu' in the file, 'conv'"),
        (gap_dissection.rotate(0.5), "rotation is None in the file, {'alpha': 0.5, 'seed': 0}"),
    ):
        message = f"^'the result' does not belong here: .*{re.escape(named)}"
        with pytest.raises(ArtifactError, match=message):
            dissection.use(result)


# In another basis.


def test_turned_units_make_the_same_sum():
    model, x = gap().double(), images()
    plain = dissection_of(model, "relu")
    turned = plain.rotate(0.7, seed=3)
    turned.dissect(random_concepts(), show_progress=False)
    one, two = plain.explain(x), turned.explain(x)
    assert_close(two.contributions.sum(1), one.contributions.sum(1), **EXACT)
    assert_close(two.cells.sum(1), one.cells.sum(1), **EXACT)  # at each place
    assert_close(two.scores, one.scores, **EXACT)
    assert not torch.allclose(two.contributions, one.contributions)
    assert two.is_exact.all()


# As an attribution of Captum.


def test_the_attribution_is_the_map_of_detectors_laid_over_the_image(gap_dissection):
    x = images()
    explanation = gap_dissection.explain(x, 1)
    found = gap_dissection.attribute(x, 1)
    assert found.shape == (4, 1, 12, 10)
    assert_close(found, explanation.maps(), **EXACT)  # as many cells as pixels
    names = [name for name in explanation.by_concept() if name != NO_CONCEPT]
    for concept in (names[0], names[:2]):
        assert_close(
            gap_dissection.attribute(x, 1, concept=concept), explanation.maps(concept), **EXACT
        )


def test_maps_are_stretched_as_the_masks_are():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), *POOLED, nn.Linear(6, 3))
    dissection = dissection_of(model, "0", iou_threshold=0.0)
    x = images()
    expected = interpolate(dissection.explain(x, 0).maps(), (12, 10), mode="bilinear")
    assert_close(dissection.attribute(x, 0), expected, **EXACT)


def test_a_batch_is_attributed_as_its_images_are_and_a_tuple_gives_a_tuple(gap_dissection):
    x = images()
    together = gap_dissection.attribute(x, [0, 1, 2, 0])
    for number, target in enumerate([0, 1, 2, 0]):
        alone = gap_dissection.attribute(x[number : number + 1], target)
        assert_close(together[number], alone[0])
    (in_tuple,) = gap_dissection.attribute((x,), [0, 1, 2, 0])
    assert torch.equal(in_tuple, together)


def test_a_concept_that_is_unknown_is_refused(gap_dissection):
    with pytest.raises(InputError, match="^no unit of layer 'relu' has the concept 'moon'"):
        gap_dissection.attribute(images(), concept="moon")


def test_without_a_detector_the_map_is_empty_with_a_warning():
    dissection = dissection_of(gap(), "relu", iou_threshold=0.9)
    message = "no unit that detects something contributed to the target"
    with pytest.warns(ExplanationWarning, match=message):
        found = dissection.attribute(images())
    assert not found.any()


def test_what_are_no_images_is_refused(as_users_call, gap_dissection):
    with pytest.raises(ShapeError):
        gap_dissection.explain(images()[0])
    with pytest.raises(ShapeError):
        gap_dissection.attribute((images(), images()))


def test_captum_knows_what_it_is(gap_dissection):
    assert gap_dissection.multiplies_by_inputs
    assert gap_dissection.get_name() == "NetworkDissection"
    assert not gap_dissection.has_convergence_delta()
    with pytest.raises(NotImplementedError, match="NetworkDissection"):
        gap_dissection.attribute_future()


def test_masks_are_where_units_exceed_their_thresholds(gap_dissection):
    x, model = images(), gap_dissection.model
    with torch.no_grad():
        maps = model.relu(model.conv(x))[:, [4, 1]]
    limits = gap_dissection.result.thresholds[[4, 1], None, None]
    assert torch.equal(gap_dissection.masks(x, [4, 1], (12, 10)), maps > limits)


@pytest.mark.parametrize("unit", [-1, 6])
def test_there_is_no_mask_of_a_unit_that_there_is_not(gap_dissection, unit):
    message = f"layer 'relu' has units 0 ... 5, got {unit}"
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        gap_dissection.masks(images(1), [0, unit], (5, 5))
