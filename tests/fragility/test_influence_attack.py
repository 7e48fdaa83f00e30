"""The attack on exemplars: line by line, at first order, and what holds for every setting."""

import json
import math

import pytest
import torch
from captum.robust import AttackComparator
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from captum_blackbox.errors import ExplanationWarning, InputError, ShapeError, TargetError
from captum_blackbox.fragility.chance import generators, random_signs
from captum_blackbox.fragility.influence_attack import InfluenceAttack
from captum_blackbox.fragility.surrogate import GrowingBeta
from captum_blackbox.influence import InfluenceFunction

LAST = {"layers": ["4"], "lower_bound": -4.0, "upper_bound": 4.0}


def case(seed=0, activation=nn.ReLU, count=15, dtype=torch.float64):
    """A network of two layers, training points of three classes, and four test images."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(2, 3, 3), activation(), nn.Flatten(), nn.Dropout(), nn.Linear(27, 3)
        ).to(dtype)
    images = torch.randn(count + 4, 2, 5, 5, generator=generator, dtype=torch.float64).to(dtype)
    data = [(image, number % 3) for number, image in enumerate(images[:count])]
    return model.eval(), data, images[count:]


def naive_influence(model, data, image, label, inverse):
    """The influence of every training point on one image, on the image's graph."""
    weights = {name: each.detach() for name, each in model.named_parameters()}
    own = [weights[name].clone().requires_grad_() for name in ("4.weight", "4.bias")]
    outputs = functional_call(
        model, weights | dict(zip(("4.weight", "4.bias"), own, strict=True)), (image[None],)
    )
    loss = F.cross_entropy(outputs, torch.tensor([label]))
    gradients = torch.autograd.grad(loss, own, create_graph=True)
    at_test = torch.cat([each.flatten() for each in gradients])
    features = torch.stack([model[:4](x[None])[0] for x, _ in data]).detach()
    rows = []
    for feature, (_, t) in zip(features, data, strict=True):
        error = model[4](feature).detach().softmax(0) - F.one_hot(torch.tensor(t), 3)
        rows.append(torch.cat([torch.outer(error, feature).flatten(), error]))
    return torch.stack(rows) @ inverse @ at_test / len(data)


def naive_inverse(model, data, reg):
    total = 0
    for x, _ in data:
        feature = model[:4](x[None])[0].detach()
        p = model[4](feature).detach().softmax(0)
        wide = torch.cat(
            [torch.kron(torch.eye(3).double(), feature[None]), torch.eye(3).double()], 1
        )
        total = total + wide.T @ (p.diag() - torch.outer(p, p)) @ wide
    return torch.linalg.inv(total / len(data) + reg * torch.eye(84).double())


def test_one_step_is_the_published_formula():
    model, data, images = case()
    radius, low, high = 0.05, -1.5, 1.5
    images = images.clamp(low, high)
    attack = InfluenceAttack(model, data, layers=["4"], lower_bound=low, upper_bound=high)
    result = attack.run(images, radius)
    inverse = naive_inverse(model, data, 0.01)
    for number, image in enumerate(images):
        label = int(model(image[None]).argmax())
        leaf = image.clone().requires_grad_()
        clean = naive_influence(model, data, leaf, label, inverse)
        torch.testing.assert_close(result.clean[number], clean.detach())
        three = clean.argsort(descending=True)[:3]
        (gradient,) = torch.autograd.grad(clean[three].sum(), leaf)
        moved = (image - radius * gradient.sign()).clamp(low, high)
        attacked = naive_influence(model, data, moved, label, inverse)
        assert (
            int(model(moved[None]).argmax()) == label and attacked[three].sum() < clean[three].sum()
        )
        torch.testing.assert_close(result.inputs[number], moved)
        torch.testing.assert_close(result.attacked[number], attacked.detach())
        assert result.reduced[number].tolist() == three.tolist()
        assert float(result.rank_correlation[number]) == pytest.approx(
            spearmanr(clean.detach(), attacked.detach()).statistic
        )
        five = [set(each.argsort(descending=True)[:5].tolist()) for each in (clean, attacked)]
        assert float(result.overlap()[number]) == len(five[0] & five[1]) / 5
        assert result.success[number] and result.label_kept[number]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_a_small_step_changes_the_influence_by_the_size_of_its_gradient(activation):
    model, data, images = case(activation=activation)
    attack = InfluenceAttack(model, data, **LAST)
    function = InfluenceFunction(model, data, layers=["4"])
    errors = []
    for radius in (1e-2, 1e-4, 1e-6):
        result = attack.run(images, radius)
        summed = function.of_points(result.reduced, result.label)
        leaf = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(summed(leaf).sum(), leaf)
        first_order = -radius * gradient.abs().flatten(1).sum(1)
        change = result.trajectory[:, 1] - result.trajectory[:, 0]
        errors.append(float((change / first_order - 1).abs().max()))
        assert bool((change < 0).all() and result.success.all())
    assert errors[2] < 1e-4 and errors[2] < errors[0]


def test_the_trajectory_and_what_is_returned_fit_each_other():
    model, data, images = case()
    result = InfluenceAttack(model, data, **LAST).run(images, 0.3, step_num=8)
    assert result.trajectory.shape == result.eligible.shape == (4, 9)
    summed = InfluenceFunction(model, data, layers=["4"]).of_points(result.reduced, result.label)
    for row in range(4):
        kept = result.trajectory[row].where(result.eligible[row], torch.inf)
        assert int(result.best_step[row]) == int(kept.argmin())
        torch.testing.assert_close(summed(result.inputs)[row], kept.min())
    expected = result.attacked.gather(1, result.reduced).sum(1)
    torch.testing.assert_close(summed(result.inputs), expected)
    shorter = InfluenceAttack(model, data, **LAST).run(images, 0.3, step_num=4, step_size=0.1)
    longer = InfluenceAttack(model, data, **LAST).run(images, 0.3, step_num=9, step_size=0.1)
    assert bool((longer.trajectory.amin(1) <= shorter.trajectory.amin(1)).all())


@pytest.mark.parametrize(("step_num", "step"), [(1, 0.1), (2, 0.1), (5, 0.05), (10, 0.025)])
def test_several_steps_reach_two_and_a_half_radii(step_num, step):
    model, data, images = case()
    attack = InfluenceAttack(model, data, **LAST)
    found = attack.run(images, 0.1, step_num=step_num)
    expected = attack.run(images, 0.1, step_num=step_num, step_size=step)
    torch.testing.assert_close(found.trajectory, expected.trajectory)


def test_what_is_no_better_is_not_taken():
    model, data, images = case()
    result = InfluenceAttack(model, data, **LAST).run(images, 0.0, step_num=2)
    assert result.best_step.tolist() == [0] * 4 and bool(result.eligible.all())


def test_where_the_direction_is_not_known_nothing_moves():
    class Root(nn.Module):
        def forward(self, x):
            return x.sqrt()  # no derivative at 0

    model, data, images = case()
    rooted = nn.Sequential(Root(), model[0], *list(model)[1:])
    data = [(x.abs() + 0.1, label) for x, label in data]
    images = images.abs().clamp(0.2, 0.8)
    images[0, 0, 2, 2] = 0
    result = InfluenceAttack(rooted, data, layers=["5"]).run(images, 0.1)
    still = result.inputs[0] == images[0]
    assert bool(still[0, 2, 2]) and int(still.sum()) < 25 and bool(result.success[0])


def test_an_image_whose_label_flips_comes_back_unchanged():
    """One pixel and two classes on either side of 0: against the influence is across the border."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    model[1].weight.data.copy_(torch.tensor([[1.0], [-1.0]]))
    data = [(torch.full((1, 1, 1), value), int(value < 0)) for value in (0.6, 0.9, -0.4, -0.2)]
    images = torch.full((1, 1, 1, 1), 0.3)
    attack = InfluenceAttack(model, data, lower_bound=-1.0)
    near, far = attack.run(images, 0.1), attack.run(images, 0.5)
    assert near.eligible.tolist() == [[True, True]] and near.success.tolist() == [True]
    assert far.inputs.sign().item() == 1 and far.label_kept.tolist() == [True]
    assert far.eligible.tolist() == [[True, False]]
    assert torch.equal(far.inputs, images) and far.success.tolist() == [False]
    assert far.best_step.tolist() == [0] and torch.equal(far.clean, far.attacked)
    assert far.overlap(2).tolist() == [1]


@settings(max_examples=15)
@given(
    seed=st.integers(0, 50),
    radius=st.sampled_from([0.0, 0.02, 0.5, 3.0]),
    per_channel=st.booleans(),
    mode=st.sampled_from(["influence", "random"]),
    step_num=st.integers(0, 3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_ball_bounds_mask_and_label_hold(seed, radius, per_channel, mode, step_num, dtype):
    model, data, images = case(seed, dtype=dtype)
    images = images.clamp(-1, 1)
    size = torch.tensor([radius, radius / 2]) if per_channel else radius
    mask = torch.rand(4, 1, 5, 5, generator=torch.Generator().manual_seed(seed)) < 0.7
    attack = InfluenceAttack(model, data, layers=["4"], lower_bound=-1.0)
    result = attack.run(images, size, step_num=step_num, mask=mask, mode=mode, seed=seed)
    change = (result.inputs - images).abs()
    limit = torch.as_tensor(size).double().reshape(-1, 1, 1)
    assert bool((change <= limit * (1 + 1e-6)).all())
    assert bool((result.inputs.abs() <= 1).all()) and result.inputs.dtype == dtype
    assert float(change[~mask.expand_as(change)].sum()) == 0
    assert torch.equal(model(result.inputs).argmax(1), model(images).argmax(1))
    assert bool(result.label_kept.all())
    if radius == 0 or (step_num == 0 and mode == "influence"):
        assert torch.equal(result.inputs, images) and not bool(result.success.any())


def test_a_batch_is_its_images_one_by_one():
    model, data, images = case()
    attack = InfluenceAttack(model, data, **LAST)
    for kwargs in ({"step_num": 3}, {"mode": "random", "seed": 7}):
        whole = attack.run(images, 0.1, **kwargs)
        for number in range(4):
            alone = attack.run(images[number : number + 1], 0.1, **kwargs)
            torch.testing.assert_close(alone.inputs[0], whole.inputs[number], rtol=0, atol=1e-12)
            torch.testing.assert_close(alone.attacked[0], whole.attacked[number])


def test_random_signs_are_one_draw_at_the_full_radius():
    model, data, images = case()
    attack = InfluenceAttack(model, data, **LAST)
    one, same, other = (attack.run(images, 0.01, mode="random", seed=seed) for seed in (0, 0, 1))
    moved = (one.inputs - images)[one.best_step > 0]
    torch.testing.assert_close(moved.abs(), torch.full_like(moved, 0.01))
    assert 0.3 < float((moved > 0).double().mean()) < 0.7
    assert torch.equal(one.inputs, same.inputs) and not torch.equal(one.inputs, other.inputs)
    assert one.trajectory.shape == (4, 2)
    several = attack.run(images, 0.01, mode="random", step_num=7)
    assert torch.equal(several.inputs, one.inputs) and several.settings["step_num"] == 1


def test_random_signs_that_flip_the_label_are_drawn_again():
    """Two pixels whose sum decides: of the four draws, one flips the label of the first image."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    model[1].weight.data.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    values = (0.6, 0.9, -0.4, -0.2)
    data = [(torch.full((1, 1, 2), value), int(value < 0)) for value in values]
    images = torch.tensor([[0.11, 0.12], [0.9, 0.8]]).view(2, 1, 1, 2)
    attack = InfluenceAttack(model, data, lower_bound=-1.0, upper_bound=2.0)
    most = 0
    for seed in range(12):
        result = attack.run(images, 0.5, mode="random", seed=seed)
        own = generators(images, seed)
        for row, image in enumerate(images):
            draws = 0
            while True:
                draws += 1
                signs = random_signs([own[row]], image[None])[0]
                expected = image + 0.5 * signs
                if float(expected.sum()) > 0:
                    break
            assert int(result.best_step[row]) == draws
            torch.testing.assert_close(result.inputs[row], expected)
            kept = [True] + [False] * (draws - 1) + [True]
            assert result.eligible[row].tolist()[: draws + 1] == kept
            assert not bool(result.eligible[row, draws + 1 :].any())
            assert bool(result.trajectory[row, : draws + 1].isfinite().all())
            assert bool(result.trajectory[row, draws + 1 :].isnan().all())
            most = max(most, draws)
        read = json.loads(json.dumps(result.to_dict(), allow_nan=False))
        assert read["trajectory"][1] == [
            None if math.isnan(value) else value for value in result.trajectory[1].tolist()
        ]
    assert most > 1


def test_random_signs_are_drawn_sixteen_times_at_most():
    class Island(nn.Module):
        """A label that holds nowhere but around 0.3."""

        def __init__(self):
            super().__init__()
            self.height = nn.Parameter(torch.ones(1))

        def forward(self, x):
            near = self.height - (x.flatten(1) - 0.3).abs() * 9
            return torch.cat([near, near * 0], 1)

    data = [(torch.full((1, 1, 1), value), 0) for value in (0.6, 0.9)]
    images = torch.full((1, 1, 1, 1), 0.3)
    result = InfluenceAttack(Island(), data).run(images, 0.25, mode="random", top=1)
    assert result.trajectory.shape == (1, 17) and result.best_step.tolist() == [0]
    assert torch.equal(result.inputs, images) and result.label_kept.tolist() == [True]


def test_images_that_are_not_finite_are_refused(as_users_call):
    _, _, images = case()
    broken = images.clamp(0, 1)
    for value in (torch.nan, torch.inf):
        broken[2, 0, 1, 1] = value
        refused(InputError, r"image 2 is not finite \(1 of 4\)", 0.1, inputs=broken)


def test_the_attack_beats_random_signs():
    model, data, images = case(seed=3)
    attack = InfluenceAttack(model, data, **LAST)
    ours, noise = attack.run(images, 0.3), attack.run(images, 0.3, mode="random")
    assert ours.rank_correlation.mean() < noise.rank_correlation.mean()
    assert ours.overlap().mean() < noise.overlap().mean()


def test_the_class_in_the_loss_can_be_another():
    model, data, images = case()
    attack = InfluenceAttack(model, data, **LAST)
    other = (model(images).argmax(1) + 1) % 3
    result = attack.run(images, 0.01, target=other)
    expected = InfluenceFunction(model, data, layers=["4"]).influence(images, other)
    torch.testing.assert_close(result.clean, expected)
    assert torch.equal(result.target, other)
    assert torch.equal(result.label, model(images).argmax(1))
    assert torch.equal(attack.run(images, 0.01, target=1).target, torch.full((4,), 1))


def test_fewer_or_more_points_can_be_reduced():
    model, data, images = case()
    attack = InfluenceAttack(model, data, **LAST)
    result = attack.run(images, 0.01, top=1)
    assert torch.equal(result.reduced, result.exemplars(1)[0])
    everything = attack.run(images, 0.01, top=15)
    torch.testing.assert_close(everything.trajectory[:, 0], everything.clean.sum(1))


def test_a_surrogate_bends_the_direction_and_nothing_else():
    model, data, images = case()
    plain = InfluenceAttack(model, data, **LAST).run(images, 0.05)
    soft = InfluenceAttack(model, data, beta=2.0, **LAST).run(images, 0.05)
    sharp = InfluenceAttack(model, data, beta=1e4, **LAST).run(images, 0.05)
    assert torch.equal(soft.clean, plain.clean)
    assert not torch.equal(soft.inputs, plain.inputs)
    moved = plain.inputs != images  # where no unit is active, the sharpest surrogate still moves
    torch.testing.assert_close(sharp.inputs[moved], plain.inputs[moved])


def test_a_surrogate_can_grow_with_the_steps():
    model, data, images = case()
    growing = InfluenceAttack(model, data, beta=GrowingBeta(0.5, 50.0, 1), **LAST)
    found = growing.run(images, 0.2, step_size=0.1, step_num=2, top=15)
    first, second = (InfluenceAttack(model, data, beta=beta, **LAST) for beta in (0.5, 50.0))
    once = first.run(images, 0.1, top=15)
    twice = second.run(once.inputs, 0.1, top=15)
    assert bool((once.best_step == 1).all())
    expected = torch.cat([once.trajectory, twice.trajectory[:, 1:]], 1)
    torch.testing.assert_close(found.trajectory, expected)
    same = first.run(images, 0.2, step_size=0.1, step_num=2, top=15)
    assert not torch.equal(found.trajectory, same.trajectory)


def test_a_model_in_training_mode_is_attacked_in_evaluation_mode():
    model, data, images = case()
    expected = InfluenceAttack(model, data, **LAST).run(images, 0.3, step_num=3)
    found = InfluenceAttack(model.train(), data, **LAST).run(images, 0.3, step_num=3)
    assert torch.equal(found.label, expected.label)
    assert torch.equal(found.eligible, expected.eligible)
    assert torch.equal(found.inputs, expected.inputs)


def test_the_model_stays_as_it_is():
    model, data, images = case()
    model.train()
    model[3].eval()
    model[0].weight.requires_grad_(False)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    images.requires_grad_()
    with torch.inference_mode():
        InfluenceAttack(model, data, beta=30.0, **LAST).run(images, 0.05, step_num=2)
    with pytest.raises(TargetError):
        InfluenceAttack(model, data, **LAST).run(images, 0.05, target=5)
    assert [module.training for module in model] == [True, True, True, False, True]
    assert [p.requires_grad for p in model.parameters()] == [False, True, True, True]
    assert all(p.grad is None for p in model.parameters()) and images.grad is None
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_captums_comparator_takes_it():
    model, data, images = case()
    attack = InfluenceAttack(model, data, **LAST)
    comparator = AttackComparator(model, lambda output: output.argmax(1).double())
    comparator.add_attack(attack, "influence", attack_kwargs={"radius": 0.1})
    values = comparator.evaluate(images)
    assert torch.equal(values["influence"]["mean"], values["Original"])
    attacked = attack.perturb((images,), radius=0.1)
    assert isinstance(attacked, tuple) and torch.equal(attacked[0], attack.run(images, 0.1).inputs)


def test_an_image_that_does_not_matter_is_said():
    model, data, images = case()
    model[0].weight.data.zero_()
    with pytest.warns(ExplanationWarning, match=r"does not depend on image 0 \(4 of 4\)"):
        result = InfluenceAttack(model, data, **LAST).run(images, 0.1)
    assert torch.equal(result.inputs, images) and not bool(result.success.any())
    with pytest.warns(ExplanationWarning) as said:
        InfluenceAttack(model, data, **LAST).run(images, 0.1, step_num=3)
    assert len(said) == 1


def test_numbers_go_to_json():
    model, data, images = case()
    result = InfluenceAttack(model, data, **LAST).run(images, 0.1, step_num=2)
    read = json.loads(json.dumps(result.to_dict()))
    assert read["settings"]["layers"] == ["4.weight", "4.bias"]
    assert read["settings"]["radius"] == 0.1 and read["settings"]["training_points"] == 15
    assert read["exemplars"]["clean"] == result.exemplars(5)[0].tolist()
    assert read["overlap"] == result.overlap().tolist()
    few = InfluenceAttack(model, data[:4], **LAST).run(images, 0.1).to_dict()
    assert len(few["exemplars"]["attacked"][0]) == 4


def refused(error, match, *args, inputs=None, make=None, **kwargs):
    model, data, images = case()
    with pytest.raises(error, match=match):
        InfluenceAttack(model, data, layers=["4"], **(make or {})).run(
            images.clamp(0, 1) if inputs is None else inputs, *args, **kwargs
        )


def test_bad_input_is_refused(as_users_call):
    _, _, images = case()
    refused(InputError, "radius is a finite number of 0 or more, got -0.1", -0.1)
    refused(InputError, "outside the bounds 0 … 1", 0.1, inputs=images)
    refused(InputError, r"top between 1 and the 15 training points.*top 0", 0.1, top=0)
    refused(InputError, "top 16", 0.1, top=16)
    refused(InputError, "got step_num -1", 0.1, step_num=-1)
    refused(InputError, "step_size is a positive number, got 0", 0.1, step_size=0.0)
    refused(InputError, "mode is one of 'influence', 'random', got 'walk'", 0.1, mode="walk")
    refused(TargetError, "target 3 is out of range for 3 classes", 0.1, target=3)
    refused(ShapeError, "expected images", 0.1, inputs=images[0])
    refused(ShapeError, "expected floating-point images", 0.1, inputs=images.long())
    refused(InputError, "beta is a positive finite number", 0.1, make={"beta": -1.0})
