"""Silenced units, beside networks whose channels are set to 0 by hand."""

import re

import pytest
import torch
from naive_dissection import random_concepts
from networks import SideBranch, State, TwoConvs
from torch import nn
from torch.testing import assert_close

from captum_blackbox import NetworkDissection
from captum_blackbox.dissection.paired_silencing import detectors_against_others
from captum_blackbox.dissection.rotation import fractional_rotation, random_rotation
from captum_blackbox.dissection.silencing import UnitEffects, unit_effects
from captum_blackbox.errors import InputError, ShapeError, TargetError

EXACT = {"rtol": 1e-12, "atol": 1e-12}


class Residual(nn.Module):
    """The layer lies inside a block: its copies are added to one input."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head((x + self.norm(self.inner(x))).relu().mean((2, 3)))


class Dense(nn.Module):
    """The layer is put beside its input, which has one image where the layer has copies."""

    def __init__(self):
        super().__init__()
        self.stem, self.inner = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x).relu()
        return self.head(torch.cat([x, self.inner(x).relu()], 1).mean((2, 3)))


class Flat(nn.Module):
    """Takes the number of images from its input."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 80, 3)

    def forward(self, x):
        return self.head(self.inner(x).relu().view(len(x), -1))


class Joined(nn.Module):
    """Joins the copies that the layer makes to one image, without an error."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.inner(x).relu().view(len(x), 4, -1).mean(2))


NETWORKS = {
    "plain": (TwoConvs, "conv2"),
    "in place": (lambda: TwoConvs(inplace=True), "conv1"),
    "residual": (Residual, "inner"),
    "stem": (Residual, "stem"),
    "dense": (Dense, "inner"),
    "flat": (Flat, "inner"),
    "joined": (Joined, "inner"),
}


def case(name):
    make, layer = NETWORKS[name]
    torch.manual_seed(4)
    model = make().double()
    return model, NetworkDissection(model, layer, quantile=0.1, upsample="resize"), layer


def images(count=6):
    return torch.rand(count, 3, 12, 10, dtype=torch.float64)


def by_hand(model, layer, x, units):
    """Return the scores with rows of the layer's weights and bias set to 0."""
    own = model.get_submodule(layer)
    weight, bias = own.weight.data.clone(), own.bias.data.clone()
    own.weight.data[units], own.bias.data[units] = 0, 0
    try:
        with torch.no_grad():
            return model.eval()(x)
    finally:
        own.weight.data, own.bias.data = weight, bias


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("units", [[1], [0, 3], 2, range(4)], ids=str)
def test_the_network_runs_as_if_the_channels_were_0(name, units):
    model, dissection, layer = case(name)
    x = images()
    expected = by_hand(model, layer, x, list(units) if not isinstance(units, int) else [units])
    with dissection.ablate(units) as ablated, torch.no_grad():
        assert ablated is model
        found = model.eval()(x)
    assert_close(found, expected, **EXACT)


def test_blocks_within_blocks_silence_the_units_of_all():
    model, dissection, layer = case("plain")
    x = images()
    with torch.no_grad(), dissection.ablate([1]):
        with dissection.ablate([2, 3]):
            inner = model.eval()(x)
        outer = model(x)
    assert_close(inner, by_hand(model, layer, x, [1, 2, 3]), **EXACT)
    assert_close(outer, by_hand(model, layer, x, [1]), **EXACT)
    with torch.no_grad():
        assert_close(model(x), by_hand(model, layer, x, []), **EXACT)


def test_the_network_is_as_it_was_behind_the_block_also_after_an_error():
    model, dissection, _ = case("in place")
    model.train()
    before = State(model)
    with pytest.raises(ZeroDivisionError), dissection.ablate([1]):
        assert before.differences(State(model)) == ["hooks"]
        raise ZeroDivisionError
    assert not before.differences(State(model))


def test_gradients_pass_silenced_units():
    model, dissection, _ = case("plain")
    x = images().requires_grad_()
    with dissection.ablate([0, 1, 2]):
        (some,) = torch.autograd.grad(model.eval()(x).sum(), x)
    assert bool((some != 0).any())
    with dissection.ablate(range(6)):
        (none,) = torch.autograd.grad(model(x).sum(), x)
    assert not none.any()


@pytest.mark.parametrize(
    ("units", "message"),
    [
        ([6], "layer 'conv2' has units 0 ... 5, got 6"),
        ([0, -1], "layer 'conv2' has units 0 ... 5, got -1"),
    ],
)
def test_a_unit_that_there_is_not_is_refused_when_the_network_runs(units, message):
    model, dissection, _ = case("plain")
    model.eval()
    before = State(model)
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"), dissection.ablate(units):
        model(images())
    assert not before.differences(State(model))


@pytest.mark.parametrize("units", [[], [0.5], torch.tensor([True, False])], ids=str)
def test_what_are_no_numbers_of_units_is_refused(as_users_call, units):
    _, dissection, _ = case("plain")
    message = f"^expected numbers of units, got {re.escape(repr(units))}$"
    with pytest.raises(InputError, match=message), dissection.ablate(units):
        pass


def test_units_of_a_reshaped_output_cannot_be_silenced():
    model, _, layer = case("plain")
    dissection = NetworkDissection(model, layer, reshape_transform=lambda output: output)
    with pytest.raises(InputError, match="reshaped cannot be silenced"), dissection.ablate([0]):
        pass


def test_units_of_another_basis_are_silenced_in_that_basis():
    model, plain, layer = case("plain")
    turned = plain.rotate(0.6, seed=2)
    matrix = fractional_rotation(random_rotation(6, 2), 0.6)
    x = images()
    own = model.get_submodule(layer)
    keep = torch.ones(6).double()
    keep[[1, 4]] = 0
    change = matrix.T @ torch.diag(keep) @ matrix
    weight, bias = own.weight.data.clone(), own.bias.data.clone()
    own.weight.data = torch.einsum("ab,bchw->achw", change, weight)
    own.bias.data = change @ bias
    with torch.no_grad():
        expected = model.eval()(x)
    own.weight.data, own.bias.data = weight, bias
    with turned.ablate([1, 4]), torch.no_grad():
        assert_close(model(x), expected, **EXACT)
    with turned.ablate(range(6)), plain.ablate([0]), torch.no_grad():  # all is all
        assert_close(model(x), by_hand(model, layer, x, range(6)), **EXACT)


# One unit after another.


def naive_effects(dissection, batches, units, classes=3):
    """Silence each unit, run everything, and count."""
    model, size = dissection.model.eval(), len(units)
    drops = torch.zeros(2, size, classes, dtype=torch.float64)
    count, right = torch.zeros(classes), torch.zeros(classes)
    for x, labels in batches:
        with torch.no_grad():
            whole = model(x)
        for row, label in enumerate(labels.tolist()):
            count[label] += 1
            right[label] += whole[row].argmax() == label
        for place, unit in enumerate(units):
            with dissection.ablate([unit]), torch.no_grad():
                silent = model(x)
            for row, label in enumerate(labels.tolist()):
                drops[0, place, label] += whole[row, label] - silent[row, label]
                was, stays = whole[row].argmax() == label, silent[row].argmax() == label
                drops[1, place, label] += float(was) - float(stays)
    return drops / count.clamp(min=1), right / count.clamp(min=1), count


def labelled(count=6, classes=3):
    torch.manual_seed(11)
    x = images(2 * count)
    labels = torch.arange(2 * count) % classes
    return [(x[:4], labels[:4]), (x[4:], labels[4:])]


@pytest.mark.parametrize("at_a_time", [1, 3, 64])
@pytest.mark.parametrize("name", NETWORKS)
def test_effects_are_those_of_silencing_each_unit_apart(name, at_a_time):
    model, dissection, _ = case(name)
    model.eval()
    with torch.no_grad():  # scores that small changes turn over
        model.get_submodule("linear" if hasattr(model, "linear") else "head").bias -= model(
            images()
        ).mean(0)
    batches = labelled(classes=4 if hasattr(model, "linear") else 3)
    classes = 4 if hasattr(model, "linear") else 3
    before = State(model)
    found = unit_effects(dissection, batches, at_a_time=at_a_time, show_progress=False)
    assert not before.differences(State(model))
    units = list(range(len(found.units)))
    assert found.units.tolist() == units
    (score, accuracy), right, count = naive_effects(dissection, batches, units, classes)
    assert_close(found.score_drop, score, **EXACT)
    assert_close(found.accuracy_drop, accuracy, **EXACT)
    assert_close(found.accuracy, right.double())
    assert found.images.tolist() == count.tolist()
    assert bool((score != 0).any())


def test_some_units_are_rows_of_all():
    _, dissection, _ = case("residual")
    whole = unit_effects(dissection, labelled(), show_progress=False)
    some = unit_effects(dissection, labelled(), [3, 1], show_progress=False)
    assert some.units.tolist() == [3, 1]
    assert_close(some.score_drop, whole.score_drop[[3, 1]], **EXACT)


def test_a_layer_beside_the_scores_has_no_effect():
    dissection = NetworkDissection(SideBranch().double(), "side")
    for at_a_time in (1, 3, 64):
        found = unit_effects(dissection, labelled(), at_a_time=at_a_time, show_progress=False)
        assert found.score_drop.shape == (4, 4)
        assert not found.score_drop.any() and not found.accuracy_drop.any()


class Overwrites(TwoConvs):
    def forward(self, x):
        return super().forward(x.sub_(0.5))


def test_what_the_network_overwrites_is_a_copy():
    torch.manual_seed(4)
    plain, overwrites = TwoConvs().double(), Overwrites().double()
    overwrites.load_state_dict(plain.state_dict())
    moved = [(x - 0.5, labels) for x, labels in labelled()]
    expected = unit_effects(NetworkDissection(plain, "conv1"), moved, show_progress=False)
    dissection = NetworkDissection(overwrites, "conv1", quantile=0.1, iou_threshold=0.0)
    dissection.dissect(random_concepts(), show_progress=False)
    batches = labelled()
    for at_a_time in (2, 64):
        found = unit_effects(dissection, batches, at_a_time=at_a_time, show_progress=False)
        assert_close(found.score_drop, expected.score_drop, **EXACT)
    dissection.attribute(batches[0][0], 0)
    dissection.masks(batches[0][0], [0], (5, 5))
    limit = float(dissection.result.iou.amax(1).median())
    split = dissection.changed(iou_threshold=limit).use(dissection.result)
    detectors_against_others(split, batches, draws=1, show_progress=False)
    for (x, _), (untouched, _) in zip(batches, labelled(), strict=True):
        assert torch.equal(x, untouched)


def test_images_go_where_the_network_is_in_any_mode(device):
    model, dissection, _ = case("residual")
    expected = unit_effects(dissection, labelled(), show_progress=False)
    model.to(device)
    with torch.inference_mode():
        found = unit_effects(dissection, labelled(), show_progress=False)
    assert_close(found.score_drop, expected.score_drop)
    dissection.dissect(random_concepts(), show_progress=False)
    limit = float(dissection.result.iou.amax(1).median())
    split = dissection.changed(iou_threshold=limit).use(dissection.result)
    pairs = detectors_against_others(split, labelled(), draws=2, show_progress=False)
    assert pairs.accuracy == pytest.approx(float((found.accuracy * found.images).sum()) / 12)


def test_turned_units_have_effects_too():
    _, plain, _ = case("residual")
    turned = plain.rotate(1.0, seed=5)
    found = unit_effects(turned, labelled(), show_progress=False)
    (score, _), *_ = naive_effects(turned, labelled(), range(4))
    assert_close(found.score_drop, score, **EXACT)


def test_a_class_without_images_is_not_hurt():
    _, dissection, _ = case("residual")
    batches = [(images(3), torch.tensor([0, 2, 2]))]
    found = unit_effects(dissection, batches, show_progress=False)
    assert found.images.tolist() == [1, 0, 2]
    assert not found.score_drop[:, 1].any() and not found.accuracy_drop[:, 1].any()
    assert found.accuracy[1] == 0


def effects(score, accuracy):
    return UnitEffects(
        units=torch.tensor([7, 2, 9, 4]),
        score_drop=torch.tensor(score).double()[:, None],
        accuracy_drop=torch.tensor(accuracy).double()[:, None],
        images=torch.tensor([4]),
        accuracy=torch.tensor([1.0]),
    )


def test_units_are_ranked_by_accuracy_then_score_then_their_order():
    assert effects([1, 2, 3, 4], [0.5, 0.25, 0.25, 0]).ranking(0) == [7, 9, 2, 4]
    assert effects([1, 1, 1, 1], [0, 0, 0, 0]).ranking(0) == [7, 2, 9, 4]
    assert effects([-1, 1, 0, 2], [0, 0, 0, -0.25]).ranking(0) == [2, 9, 7, 4]


def test_what_cannot_be_measured_is_refused(as_users_call):
    _, dissection, _ = case("residual")
    with pytest.raises(TargetError, match="^class 3 is out of range for 3 classes$"):
        unit_effects(dissection, [(images(1), torch.tensor([3]))], show_progress=False)
    with pytest.raises(InputError, match="^there is no image"):
        unit_effects(dissection, [], show_progress=False)
    with pytest.raises(ShapeError, match=r"got shapes \(2, 3, 12, 10\) and \(3,\)$"):
        unit_effects(dissection, [(images(2), torch.tensor([0, 1, 2]))], show_progress=False)
    with pytest.raises(InputError, match="^layer 'inner' has units 0 ... 3, got 4$"):
        unit_effects(dissection, labelled(), [4], show_progress=False)
    with pytest.raises(InputError, match="^expected numbers of units"):
        unit_effects(dissection, labelled(), [], show_progress=False)
    with pytest.raises(InputError, match="^at_a_time is at least 1, got 0$"):
        unit_effects(dissection, labelled(), at_a_time=0, show_progress=False)


def test_an_error_of_the_network_is_its_own():
    class Breaks(Residual):
        def forward(self, x):
            super().forward(x)
            raise RuntimeError("broken")

    dissection = NetworkDissection(Breaks().double(), "inner")
    before = State(dissection.model)
    with pytest.raises(RuntimeError, match="^broken$"):
        unit_effects(dissection, labelled(), [0], show_progress=False)
    assert not before.differences(State(dissection.model))


# Detectors against units that detect nothing.


def compared(**options):
    model, _, layer = case("plain")
    dissection = NetworkDissection(
        model, layer, quantile=0.1, upsample="resize", iou_threshold=0.13
    )
    dissection.dissect(random_concepts(), show_progress=False)
    batches = labelled(classes=4)
    with torch.no_grad():
        model.linear.bias -= model.eval()(images()).mean(0)
    options = {"draws": 6, "show_progress": False, **options}
    return dissection, batches, detectors_against_others(dissection, batches, **options)


def test_the_seed_decides_what_is_drawn():
    _, _, one = compared(size=1)
    _, _, two = compared(size=1)
    _, _, other = compared(size=1, seed=1)
    assert one.detectors.tolist() == two.detectors.tolist()
    assert one.others.tolist() == two.others.tolist()
    assert (one.detectors.tolist(), one.others.tolist()) != (
        other.detectors.tolist(),
        other.others.tolist(),
    )


def test_all_units_of_a_group_leave_nothing_to_draw():
    dissection, batches, _ = compared()
    is_detector = dissection.result.iou.amax(1) > 0.13
    groups = [is_detector.nonzero().flatten(), (~is_detector).nonzero().flatten()]
    size = min(map(len, groups))
    found = detectors_against_others(dissection, batches, size=size, draws=3, show_progress=False)
    smaller = min(range(2), key=lambda place: len(groups[place]))
    right = total = 0
    for x, labels in batches:
        with dissection.ablate(groups[smaller].tolist()), torch.no_grad():
            right += int((dissection.model.eval()(x).argmax(1) == labels).sum())
        total += len(labels)
    each = (found.detectors, found.others)[smaller]
    assert each.tolist() == [right / total] * 3
    assert found.size == size
    assert 0 <= found.share <= 1


def test_ties_count_half():
    _, _, found = compared()
    found.detectors[:], found.others[:] = torch.tensor([0.1, 0.5, 0.9]).repeat(2), 0.5
    assert found.share == 0.5
    found.detectors[:] = 0.1
    assert found.share == 1.0


def test_groups_that_are_too_small_are_refused():
    dissection, batches, _ = compared()
    result = dissection.result
    detectors = int((result.iou.amax(1) > 0.13).sum())
    smaller = min(detectors, 6 - detectors)
    message = (
        f"{detectors} units detect a concept and {6 - detectors} do not; size must be between 1 "
        f"and {smaller}, got 5"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        detectors_against_others(dissection, batches, size=5, show_progress=False)
    with pytest.raises(InputError, match="^there is no image"):
        detectors_against_others(dissection, [], show_progress=False)
    with pytest.raises(InputError, match="is not dissected yet"):
        detectors_against_others(case("plain")[1], batches, show_progress=False)
    with pytest.raises(InputError, match="^draws is at least 1, got 0$"):
        detectors_against_others(dissection, batches, draws=0, show_progress=False)
    wrong = [(images(3), torch.tensor([0, 1]))]
    with pytest.raises(ShapeError, match=r"got shapes \(3, 3, 12, 10\) and \(2,\)$"):
        detectors_against_others(dissection, wrong, show_progress=False)


def test_a_stream_of_batches_is_read_once():
    dissection, batches, expected = compared()
    found = detectors_against_others(dissection, iter(batches), draws=6, show_progress=False)
    assert found.accuracy == expected.accuracy
    assert found.detectors.tolist() == expected.detectors.tolist()
    assert found.others.tolist() == expected.others.tolist()
