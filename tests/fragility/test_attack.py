"""The attack against its slow definition, and what it promises."""

import copy
import itertools
import json
import math
import pickle

import pytest
import slow_attack
import torch
from attacked_networks import SIZE, Edge, small_cnn, some_images
from captum.attr import InputXGradient, IntegratedGradients, Saliency
from torch import nn

from captum_blackbox import InterpretationAttack, metrics
from captum_blackbox.errors import ExplanationWarning, InputError, TargetError
from captum_blackbox.fragility import (
    GrowingBeta,
    RelativeBeta,
    center_moved,
    softened,
    topk_below,
)
from captum_blackbox.fragility.chance import generators, unit_vectors

RADIUS, STEP, STEPS, K = 0.1, 0.01, 12, 6
BETA = 20.0
REGION = torch.zeros(SIZE, SIZE)
REGION[:3, :3] = 1


def saliency(model, images, target):
    return Saliency(model).attribute(images.clone().requires_grad_(), target=target).detach()


def surrogate_of(model):
    def surrogate(images):
        with softened(model, BETA):
            return model(images)

    return surrogate


@pytest.mark.parametrize("mode", ["topk", "mass_center", "targeted"])
def test_it_is_the_papers_algorithm(mode):
    model, images = small_cnn(), some_images()
    attack = InterpretationAttack(Saliency(model), beta=BETA)
    result = attack.run(
        images, RADIUS, STEP, STEPS, mode=mode, k=K, region=REGION if mode == "targeted" else None
    )
    away = unit_vectors(generators(images, 0))
    for row, image in enumerate(images):
        best, values = slow_attack.attack(
            model,
            surrogate_of(model),
            image,
            mode=mode,
            radius=RADIUS,
            step=STEP,
            steps=STEPS,
            k=K,
            region=REGION,
            away=away[row].tolist(),
        )
        torch.testing.assert_close(result.inputs[row], best, atol=1e-12, rtol=0)
        torch.testing.assert_close(
            result.trajectory[row], torch.tensor(values, dtype=torch.float64), atol=1e-7, rtol=0
        )
    assert result.success.all()


def test_the_measures_are_those_of_the_attacked_images():
    model, images = small_cnn(), some_images()
    result = InterpretationAttack(Saliency(model), beta=BETA).run(
        images, RADIUS, STEP, STEPS, k=K, region=REGION
    )
    maps = [saliency(model, each, result.target) for each in (images, result.inputs)]
    found = result.attacked
    torch.testing.assert_close(found.intersection, metrics.topk_intersection(*maps, K))
    torch.testing.assert_close(found.rank_correlation, metrics.rank_correlation(*maps))
    torch.testing.assert_close(found.center_shift, metrics.center_shift(*maps))
    torch.testing.assert_close(found.cosine, metrics.cosine_similarity(*maps))
    torch.testing.assert_close(found.region_mass, metrics.region_mass(maps[1], REGION))
    probabilities = model(result.inputs).softmax(1)
    torch.testing.assert_close(
        found.confidence, probabilities.gather(1, result.label[:, None])[:, 0].detach()
    )
    change = result.inputs - images
    torch.testing.assert_close(found.linf, change.abs().flatten(1).amax(1))
    torch.testing.assert_close(found.l2, change.flatten(1).norm(dim=1))
    assert result.clean.intersection.tolist() == [1, 1, 1]
    torch.testing.assert_close(result.clean.rank_correlation, torch.ones(3).double())
    assert result.clean.center_shift.tolist() == [0, 0, 0]
    torch.testing.assert_close(result.clean_maps, maps[0])
    torch.testing.assert_close(result.attacked_maps, maps[1])
    assert (model(result.inputs).argmax(1) == model(images).argmax(1)).all()


@pytest.mark.parametrize("mode", ["topk", "mass_center", "random_walk"])
def test_more_steps_are_never_worse(mode):
    attack, images = InterpretationAttack(Saliency(small_cnn())), some_images()
    values = []
    for steps in (0, 1, 5, 12):
        result = attack.run(images, RADIUS, STEP, steps, mode=mode, k=K)
        criterion = (
            result.attacked.center_shift if mode == "mass_center" else -result.attacked.intersection
        )
        values.append(criterion)
    for fewer, more in itertools.pairwise(values):
        assert (more >= fewer).all()
    assert (values[-1] > values[0]).any()


@pytest.mark.parametrize(("radius", "steps"), [(0.0, 5), (0.1, 0)])
def test_without_room_or_steps_nothing_changes(radius, steps):
    images = some_images()
    result = InterpretationAttack(Saliency(small_cnn())).run(images, radius, step_num=steps)
    assert torch.equal(result.inputs, images)
    assert result.attacked.intersection.tolist() == [1, 1, 1]
    torch.testing.assert_close(result.attacked.rank_correlation, torch.ones(3).double())
    assert result.attacked.center_shift.tolist() == [0, 0, 0]
    assert not result.success.any() and result.label_kept.all()


@pytest.mark.parametrize("mode", ["topk", "mass_center"])
def test_a_linear_model_has_one_explanation(mode):
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 2)).double()
    images = some_images()
    with pytest.warns(ExplanationWarning, match="does not change at first order"):
        result = InterpretationAttack(Saliency(model)).run(images, 0.1, step_num=5, mode=mode)
    assert result.attacked.intersection.tolist() == [1, 1, 1]
    torch.testing.assert_close(result.attacked.rank_correlation, torch.ones(3).double())
    assert not result.success.any()


def test_a_network_of_relus_has_no_direction_without_a_surrogate():
    images = some_images()
    bare = InterpretationAttack(Saliency(small_cnn()), beta=None)
    with pytest.warns(ExplanationWarning, match=r"3 of 3 do not.*surrogate"):
        result = bare.run(images, 0.1, step_num=5)
    assert torch.equal(result.inputs, images)
    assert not result.success.any()
    assert all("no second-order signal" in reason for reason in result.reasons)
    with pytest.raises(InputError, match="no second-order signal"):
        bare.run(images, 0.1, step_num=5, strict=True)
    usual = InterpretationAttack(Saliency(small_cnn()))
    assert usual.run(images, 0.1, 0.01, 10, k=K).success.all()


def test_the_distance_of_the_centres_has_no_gradient_where_it_starts():
    """The trap that the random first direction avoids."""
    model, image = small_cnn(nn.Softplus), some_images(1)[0]
    leaf = image.clone().requires_grad_()
    here = slow_attack.center(slow_attack.gradient_map(model, leaf, 0, graph=True))
    squared = sum((each - each.detach()) ** 2 for each in here)
    assert torch.autograd.grad(squared, leaf)[0].abs().max() == 0
    result = InterpretationAttack(Saliency(model), beta=None).run(
        image[None], RADIUS, STEP, 1, mode="mass_center"
    )
    assert result.attacked.linf.item() == pytest.approx(STEP)
    assert result.attacked.center_shift.item() > 0


def test_an_iterate_with_another_label_is_walked_on_from_and_never_returned():
    images = some_images(2)
    model = Edge(float(images.mean((1, 2, 3)).max()) + 0.002)
    attack = InterpretationAttack(Saliency(model), beta=None)
    settings = {"radius": 0.2, "step_size": 0.02, "step_num": 30, "k": K}
    result = attack.run(images, **settings)
    assert not result.eligible.all(), "no iterate crossed the border, the test shows nothing"
    assert (model(result.inputs).argmax(1) == model(images).argmax(1)).all()
    assert result.label_kept.all()
    for row in range(2):
        checked = result.trajectory[row].masked_fill(~result.eligible[row], -math.inf)
        assert result.best_step[row] == result.steps[checked.argmax()]


def test_a_walk_that_reverts_steps_back_and_halves_its_step():
    images = some_images(2)
    model = Edge(float(images.mean((1, 2, 3)).max()) + 0.002)
    attack = InterpretationAttack(Saliency(model), beta=None)
    result = attack.run(images, 0.2, 0.02, 15, k=K, on_flip="revert")
    assert not result.eligible.all()
    for row, image in enumerate(images):
        best, values = slow_attack.attack(
            model, model, image, mode="topk", radius=0.2, step=0.02, steps=15, k=K, revert=True
        )
        torch.testing.assert_close(result.inputs[row], best, atol=1e-12, rtol=0)
        assert result.trajectory[row].tolist() == pytest.approx(values)


def test_an_image_with_another_label_comes_back_as_it_was():
    model, images = small_cnn(), some_images(4)
    attack = InterpretationAttack(Saliency(model))
    label = model(images).argmax(1)
    label[1] = (label[1] + 1) % 3
    result = attack.run(images, RADIUS, STEP, 5, label=label)
    assert torch.equal(result.inputs[1], images[1])
    assert result.success.tolist() == [True, False, True, True]
    assert result.label_kept.tolist() == [True, False, True, True]
    assert "not the label" in result.reasons[1]
    alone = attack.run(images[[0, 2, 3]], RADIUS, STEP, 5)
    torch.testing.assert_close(result.inputs[[0, 2, 3]], alone.inputs)
    with pytest.raises(InputError, match=r"image 1 \(1 of 4\) is predicted as"):
        attack.run(images, RADIUS, STEP, 5, label=label, strict=True)


def test_images_of_a_batch_do_not_influence_each_other():
    attack, images = InterpretationAttack(Saliency(small_cnn())), some_images(4)
    for mode in ("topk", "mass_center", "random", "random_walk"):
        together = attack.perturb(images, RADIUS, STEP, 6, mode=mode, seed=7)
        alone = [
            attack.perturb(image[None], RADIUS, STEP, 6, mode=mode, seed=7) for image in images
        ]
        torch.testing.assert_close(together, torch.cat(alone), atol=1e-12, rtol=0)


def test_a_random_change_is_the_radius_everywhere_or_the_bound():
    attack, images = InterpretationAttack(Saliency(small_cnn())), some_images()
    result = attack.run(images, 0.1, mode="random")
    change = result.inputs - images
    free = (images > 0.1) & (images < 0.9)
    torch.testing.assert_close(change[free].abs(), torch.full_like(change[free], 0.1))
    assert 0.4 < float((change > 0).double().mean()) < 0.6
    again, other = (attack.perturb(images, 0.1, mode="random", seed=seed) for seed in (0, 1))
    assert torch.equal(again, result.inputs) and not torch.equal(other, again)
    assert result.steps.tolist() == [0, 1]


def test_a_random_change_of_the_label_is_drawn_again():
    images = some_images(2)
    model = Edge(float(images.mean((1, 2, 3)).max()))  # half of all draws cross the border
    attack = InterpretationAttack(Saliency(model), beta=None)
    found = [attack.run(images, 0.1, mode="random", seed=seed) for seed in range(8)]
    assert all(each.label_kept.all() for each in found)
    draws = torch.stack([each.best_step for each in found])
    assert draws.min() == 1 and draws.max() > 1  # by the first draw, or a later one
    for each in found:
        change = (each.inputs - images).abs()
        free = (images > 0.1) & (images < 0.9)
        torch.testing.assert_close(change[free], torch.full_like(change[free], 0.1))


def test_a_random_walk_stays_near():
    attack, images = InterpretationAttack(Saliency(small_cnn())), some_images()
    result = attack.run(images, 0.05, 0.02, 9, mode="random_walk", k=K)
    assert float(result.attacked.linf.max()) <= 0.05 * (1 + 1e-9)
    assert result.success.any()


def test_systematic_attacks_are_stronger_than_chance():
    attack, images = InterpretationAttack(Saliency(small_cnn())), some_images(8)
    found = {
        mode: attack.run(images, 0.05, step_num=25, mode=mode, k=K).attacked
        for mode in ("topk", "mass_center", "random")
    }
    overlap = {mode: float(each.intersection.mean()) for mode, each in found.items()}
    shift = {mode: float(each.center_shift.mean()) for mode, each in found.items()}
    assert overlap["topk"] < overlap["random"] - 0.2
    assert shift["mass_center"] > 2 * shift["random"]
    assert shift["mass_center"] > shift["topk"]


def test_a_target_map_is_approached():
    attack, images = InterpretationAttack(Saliency(small_cnn())), some_images()
    wanted = torch.linspace(0, 1, SIZE**2, dtype=torch.float64).view(SIZE, SIZE) ** 3
    result = attack.run(images, 0.1, step_num=25, mode="targeted", region=wanted)
    before, after = (
        metrics.cosine_similarity(maps.abs().sum(1), wanted.expand(3, -1, -1))
        for maps in (result.clean_maps, result.attacked_maps)
    )
    assert (after > before + 0.05).all()
    assert result.settings["mode"] == "target_map"


def test_an_image_stops_once_it_has_succeeded():
    attack, images = InterpretationAttack(Saliency(small_cnn())), some_images()
    settings = {"step_num": 30, "k": K, "success": topk_below(0.75), "stop_on_success": True}
    result = attack.run(images, 0.1, 0.01, **settings)
    assert result.success.all()
    assert (result.attacked.intersection < 0.75).all()
    for row in range(3):
        seen = ~result.trajectory[row].isnan()
        assert int(result.steps[seen][-1]) == int(result.best_step[row]) < 30
    strict_test = attack.run(images, 0.1, 0.01, 5, success=center_moved(1e9))
    assert not strict_test.success.any() and (strict_test.best_step > 0).any()


def test_judging_rarely_looks_at_some_iterates_only():
    attack, images = InterpretationAttack(Saliency(small_cnn())), some_images()
    always = attack.run(images, 0.1, 0.01, 10, k=K)
    rarely = attack.run(images, 0.1, 0.01, 10, k=K, check_every=4)
    assert rarely.steps.tolist() == [0, 4, 8, 10]
    torch.testing.assert_close(rarely.trajectory, always.trajectory[:, [0, 4, 8, 10]])


def test_the_criterion_can_be_another_than_the_modes():
    attack, images = InterpretationAttack(Saliency(small_cnn())), some_images()
    by_rank = attack.run(images, 0.1, 0.01, 15, k=K, criterion="correlation")
    by_own = attack.run(
        images,
        0.1,
        0.01,
        15,
        k=K,
        criterion=lambda maps, task: -metrics.rank_correlation(task.clean, maps),
    )
    assert torch.equal(by_rank.inputs, by_own.inputs)
    usual = attack.run(images, 0.1, 0.01, 15, k=K)
    assert (by_rank.attacked.rank_correlation <= usual.attacked.rank_correlation + 1e-12).all()
    torch.testing.assert_close(by_rank.trajectory.amax(1), -by_rank.attacked.rank_correlation)


def test_the_class_explained_need_not_be_the_label():
    model, images = small_cnn(), some_images()
    result = InterpretationAttack(Saliency(model)).run(images, 0.1, 0.01, 5, target=2)
    assert result.target.tolist() == [2, 2, 2]
    assert torch.equal(result.label, model(images).argmax(1))
    expected = saliency(model, result.inputs, 2)
    torch.testing.assert_close(result.attacked_maps, expected)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"radius": -1.0}, InputError, "radius is a finite number of 0 or more"),
        ({"radius": 0.1, "target": 3}, TargetError, "target 3 is out of range for 3 classes"),
        ({"radius": 0.1, "label": 3}, TargetError, "out of range"),
        (
            {"radius": 0.1, "k": 65},
            InputError,
            r"between 1 and the 64 pixels of a map \(8, 8\), got 65",
        ),
        ({"radius": 0.1, "mode": "best"}, InputError, "mode is one of 'topk', 'mass_center'"),
        ({"radius": 0.1, "mode": "targeted"}, InputError, "mode='targeted' needs a region"),
        ({"radius": 0.1, "region": torch.ones(3, 3)}, ValueError, r"region \(8, 8\)"),
        ({"radius": 0.1, "region": torch.zeros(8, 8)}, InputError, "some pixels that are not 0"),
        ({"radius": 0.1, "step_num": -1}, InputError, "step_num is 0 or more"),
        ({"radius": 0.1, "stop_on_success": True}, InputError, "needs a test"),
        ({"radius": 0.1, "criterion": "best"}, InputError, "criterion is one of 'intersection'"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        InterpretationAttack(Saliency(small_cnn())).run(some_images(), **settings)


def test_a_baseline_for_each_image_is_refused():
    with pytest.raises(InputError, match="one baseline for all images"):
        InterpretationAttack(
            IntegratedGradients(small_cnn()), attribute_kwargs={"baselines": some_images(3)}
        )


def test_images_outside_the_bounds_are_told_of_the_way_for_normalised_ones():
    with pytest.raises(InputError, match=r"InterpretationAttack\.normalized\(attribution, mean="):
        InterpretationAttack(Saliency(small_cnn())).run(some_images() * 4 - 2, 0.1)


def test_maps_that_are_no_numbers_are_refused():
    model = small_cnn()
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="the scores of image 0 are not finite"):
        InterpretationAttack(Saliency(model)).run(some_images(), 0.1, label=0)


def test_inference_tensors_are_attacked_like_others():
    attack, images = InterpretationAttack(Saliency(small_cnn())), some_images()
    expected = attack.perturb(images, 0.1, 0.01, 4)
    with torch.inference_mode():
        found = attack.perturb(images.clone(), 0.1, 0.01, 4)
    assert torch.equal(found, expected)


def test_one_score_has_two_labels():
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(144, 1)
    ).double()
    images = some_images(4)
    result = InterpretationAttack(Saliency(model), beta=None).run(images, 0.1, 0.01, 8)
    assert torch.equal(result.label, (model(images)[:, 0] > 0).long())
    assert result.label_kept.all() and result.target.tolist() == [0] * 4


def test_arguments_of_the_network_go_with_their_images():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small_cnn()

        def forward(self, x, scale, flag):
            assert flag == "flag" and len(scale) == len(x)
            return self.inner(x * scale.view(-1, 1, 1, 1))

    model, images = Scaled(), some_images(3)
    scale = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    attack = InterpretationAttack(Saliency(model))
    label = model(images, scale, "flag").argmax(1)
    label[0] = (label[0] + 1) % 3  # so that the others are a part of the batch
    result = attack.run(images, 0.1, 0.01, 4, additional_forward_args=(scale, "flag"), label=label)
    alone = attack.run(images[2:], 0.1, 0.01, 4, additional_forward_args=(scale[2:], "flag"))
    torch.testing.assert_close(result.inputs[2:], alone.inputs)


def test_an_image_or_scores_that_are_no_numbers_are_refused():
    images = some_images()
    images[1, 0, 0, 0] = torch.nan
    with pytest.raises(InputError, match="the scores of image 1 are not finite"):
        InterpretationAttack(Saliency(small_cnn())).run(images, 0.1)


def test_a_network_may_return_one_number_an_image():
    torch.manual_seed(1)
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.Flatten(), nn.Linear(144, 1))

    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = inner.double()

        def forward(self, x):
            return self.inner(x)[:, 0]

    result = InterpretationAttack(Saliency(Flat()), beta=None).run(
        some_images(), 0.1, 0.01, 5, criterion="correlation"
    )
    assert result.label_kept.all() and result.success.any()


def test_nothing_is_done_where_nothing_may_change():
    attack, images = InterpretationAttack(Saliency(small_cnn())), some_images()
    result = attack.run(images, 0.1, step_num=5, mask=torch.zeros(8, 8))
    assert torch.equal(result.inputs, images) and result.steps.tolist() == [0]


def test_a_result_is_json_and_says_how_it_was_made():
    attack = InterpretationAttack(
        Saliency(small_cnn()), defence_beta=RelativeBeta(3.0), upper_bound=math.inf
    )
    result = attack.run(some_images(), torch.tensor([0.1, 0.05, 0.1]), 0.01, 3, region=REGION)
    found = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert found["settings"]["radius"] == pytest.approx([0.1, 0.05, 0.1])
    assert found["settings"]["criterion"] == "intersection"
    assert found["settings"]["upper_bound"] == "inf"


def test_an_attack_is_copied_and_pickled():
    images = some_images()
    attack = InterpretationAttack(InputXGradient(small_cnn()))
    expected = attack.perturb(images, 0.1, 0.01, 3)
    for again in (copy.deepcopy(attack), pickle.loads(pickle.dumps(attack))):
        assert torch.equal(again.perturb(images, 0.1, 0.01, 3), expected)


def test_tokens_before_the_batch_do_not_couple_its_images():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.into, self.out = nn.Linear(48, 6).double(), nn.Linear(6, 3).double()
            self.gate = nn.Parameter(torch.ones(3, dtype=torch.float64))

        def forward(self, x):
            tokens = nn.functional.unfold(x, 4, stride=4).permute(2, 0, 1)  # (T, N, D)
            return self.out(self.into(tokens).relu().mean(0)) * self.gate.relu()

    torch.manual_seed(0)
    attack, images = InterpretationAttack(Saliency(Tokens())), some_images(4)
    together = attack.perturb(images, 0.1, 0.01, 5, k=K)
    alone = [attack.perturb(image[None], 0.1, 0.01, 5, k=K) for image in images]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-12, rtol=0)
    assert not torch.equal(together, images)


def test_a_growing_beta_compares_the_centre_with_that_of_the_same_surrogate():
    attack = InterpretationAttack(Saliency(small_cnn()), beta=GrowingBeta(3, 100, 8))
    result = attack.run(some_images(), 0.1, 0.01, 10, mode="mass_center")
    assert result.success.all() and (result.attacked.center_shift > 0.05).all()


@pytest.mark.parametrize("beta", ["30", GrowingBeta(1, 2, 3), -1.0])
def test_a_defence_has_one_positive_beta(beta, as_users_call):
    with pytest.raises(InputError, match="beta"):
        InterpretationAttack(Saliency(small_cnn()), defence_beta=beta)
