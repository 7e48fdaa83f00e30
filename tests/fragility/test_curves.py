"""Fragility curves against single attacks, one image at a time, and what they promise."""

import math

import pytest
import torch
from attacked_networks import SIZE, small_cnn, some_images
from captum.attr import InputXGradient, NoiseTunnel, Saliency
from torch import nn

from captum_blackbox import InterpretationAttack, metrics
from captum_blackbox.errors import ArtifactError, InputError, ShapeError, TargetError
from captum_blackbox.fragility.curves import fragility_curves
from captum_blackbox.fragility.curves_result import MEASURES
from captum_blackbox.fragility.visibility import structural_similarities

RADII = (4 / 255, 0.1)
WALK = {"k": 6, "step_num": 4, "step_size": 0.02}


@pytest.fixture(scope="module")
def model():
    return small_cnn()


@pytest.fixture(scope="module")
def attacks(model):
    return {
        "gradient": InterpretationAttack(Saliency(model)),
        "input x gradient": InterpretationAttack(InputXGradient(model)),
    }


@pytest.fixture(scope="module")
def curves(attacks):
    return fragility_curves(attacks, some_images(5), radii=RADII, batch_size=3, **WALK)


class Breaking(nn.Module):
    """A network that dies on images with a bright corner."""

    def __init__(self, at_most=1.0):
        super().__init__()
        self.inner, self.at_most = small_cnn(), at_most

    def forward(self, x):
        if float(x.detach()[:, :, 0, 0].max()) > self.at_most:
            raise RuntimeError("too bright")
        return self.inner(x)


def same(first, second):
    return torch.equal(first.values.nan_to_num(-9), second.values.nan_to_num(-9)) and torch.equal(
        first.transfer.nan_to_num(-9), second.transfer.nan_to_num(-9)
    )


def test_every_number_is_that_of_a_single_attack_on_a_single_image(attacks, curves):
    images = some_images(5)
    for method, attack in attacks.items():
        for mode in ("topk", "mass_center", "random"):
            for radius in RADII:
                for row, image in enumerate(images):
                    result = attack.run(image[None], radius, mode=mode, **WALK)
                    expected = {
                        **{name: float(getattr(result.attacked, name)) for name in MEASURES[:5]},
                        "clean_confidence": float(result.clean.confidence),
                        "linf": float((result.inputs - image).abs().max()),
                        "l2": float((result.inputs - image).norm()),
                        "success": float(result.success),
                        "label_kept": 1.0,
                    }
                    for measure, value in expected.items():
                        scores = curves.scores(method, measure, mode=mode, radius=radius)
                        assert float(scores[row]) == pytest.approx(value, abs=1e-9), measure


def test_a_mean_is_over_all_images_also_those_that_were_not_moved(curves):
    at = {"mode": "topk", "radius": RADII[0]}
    scores = curves.scores("gradient", "intersection", **at).tolist()
    moved = curves.scores("gradient", "success", **at).tolist()
    assert 0 < sum(moved) < 5  # some were, and some were not
    for score, has_moved in zip(scores, moved, strict=True):
        assert (score < 1) == bool(has_moved)
    found = curves.mean("gradient", "intersection", **at)
    assert found.images == 5
    assert found.mean == pytest.approx(sum(scores) / 5)
    assert found.low <= found.mean <= found.high


def test_an_image_without_its_label_does_not_count(model, attacks):
    images = some_images(4)
    label = model(images).argmax(1)
    label[2] = (label[2] + 1) % 3
    one = {"gradient": attacks["gradient"]}
    found = fragility_curves(one, images, label=label, radii=RADII, **WALK)
    usual = fragility_curves(one, images, radii=RADII, **WALK)
    known = torch.tensor([0, 1, 3])
    assert found.values[..., 2].isnan().all()
    torch.testing.assert_close(found.values[..., known], usual.values[..., known], equal_nan=True)
    assert found.mean("gradient", "intersection", mode="topk", radius=0.1).images == 3
    assert not found.failures


def test_radius_0_is_the_clean_image(attacks):
    found = fragility_curves(attacks, some_images(2), radii=[0.0], modes=["topk"], **WALK)
    at = {"mode": "topk", "radius": 0.0}
    clean = {"intersection": 1, "rank_correlation": 1, "center_shift": 0, "ssim": 1, "success": 0}
    for measure, value in clean.items():
        scores = found.scores("gradient", measure, **at)
        torch.testing.assert_close(scores, torch.full_like(scores, value))


def test_classes_and_regions_go_with_their_images(attacks):
    images = some_images(4)
    target = torch.tensor([2, 0, 1, 1])
    regions = torch.zeros(4, SIZE, SIZE)
    for row in range(4):
        regions[row, row : row + 3] = 1
    one = {"gradient": attacks["gradient"]}
    found = fragility_curves(
        one, images, target=target, modes=["targeted"], radii=[0.1], region=regions,
        batch_size=3, **WALK
    )  # fmt: skip
    expected = attacks["gradient"].run(
        images, 0.1, target=target, mode="targeted", region=regions, **WALK
    )
    scores = found.scores("gradient", "region_mass", mode="targeted", radius=0.1)
    torch.testing.assert_close(scores, expected.attacked.region_mass)
    lists = fragility_curves(
        one, images, target=target.tolist(), modes=["targeted"], radii=[0.1], region=regions,
        **WALK
    )  # fmt: skip
    torch.testing.assert_close(found.values, lists.values, equal_nan=True)


def test_defences_are_measured_in_the_same_call(model):
    images = some_images(8)
    smooth = NoiseTunnel(Saliency(model))
    found = fragility_curves(
        {
            "none": InterpretationAttack(Saliency(model)),
            "softplus": InterpretationAttack(Saliency(model), beta=2.0, defence_beta=2.0),
            "SmoothGrad": InterpretationAttack(
                smooth, attribute_kwargs={"nt_samples": 8, "stdevs": 0.2}
            ),
        },
        images, modes=["topk"], radii=[0.1], k=6, step_num=20,
    )  # fmt: skip
    left = {
        name: found.mean(name, "rank_correlation", mode="topk", radius=0.1).mean
        for name in found.methods
    }
    assert left["none"] < left["SmoothGrad"] and left["none"] < left["softplus"]


@pytest.mark.parametrize("killed_after", [1, 3, 7])
def test_a_run_that_was_killed_goes_on_where_it_was(
    attacks, curves, killed_after, tmp_path, monkeypatch
):
    path, images = tmp_path / "curves.safetensors", some_images(5)
    run, calls = InterpretationAttack.run, []

    def counted(self, *args, **settings):
        calls.append(1)
        if len(calls) == killed_after + 1 and killing:
            raise KeyboardInterrupt
        return run(self, *args, **settings)

    monkeypatch.setattr(InterpretationAttack, "run", counted)
    settings = {"radii": RADII, "batch_size": 3, "resume": path, **WALK}
    killing = True
    with pytest.raises(KeyboardInterrupt):
        fragility_curves(attacks, images, **settings)
    with pytest.raises(ArtifactError, match="unfinished"):
        type(curves).load(path)
    killing, before = False, len(calls)
    resumed = fragility_curves(attacks, images, **settings)
    assert same(resumed, curves)
    assert len(calls) - before == 2 * 3 * 2 * 2 - killed_after  # each batch once
    again = fragility_curves(attacks, images, **{**settings, "batch_size": 5})
    assert same(again, curves) and len(calls) - before == 24 - killed_after  # nothing is left
    assert same(type(curves).load(path), curves)


def test_a_file_of_another_run_is_refused_and_what_differs_is_named(attacks, tmp_path):
    path = tmp_path / "curves.safetensors"
    images = some_images(2)
    settings = {"radii": [0.1], "modes": ["random"], "resume": path}
    fragility_curves(attacks, images, **settings)
    gradient = {"gradient": attacks["gradient"]}
    for changed, message in (
        ({"seed": 1}, "seed is 0 in the file, 1 here"),
        ({"radii": [0.2]}, "radii is"),
        ({"step_num": 7}, "step_num is 100 in the file, 7 here"),
    ):
        with pytest.raises(ArtifactError, match=message):
            fragility_curves(attacks, images, **{**settings, **changed})
    with pytest.raises(ArtifactError, match=r"images is '\w+' in the file"):
        fragility_curves(attacks, some_images(2, seed=1), **settings)
    with pytest.raises(ArtifactError, match=r"attacks is \['gradient', 'input x gradient'\] in"):
        fragility_curves(gradient, images, **settings)
    softer = {**attacks, "gradient": InterpretationAttack(Saliency(small_cnn()), beta=3.0)}
    with pytest.raises(
        ArtifactError,
        match=r"attacks: gradient: beta is 'RelativeBeta\(ratio=10.0\)' in the file, '3.0",
    ):
        fragility_curves(softer, images, **settings)
    other = {**attacks, "gradient": InterpretationAttack(Saliency(small_cnn(width=5)))}
    with pytest.raises(ArtifactError, match="attacks: gradient: network is"):
        fragility_curves(other, images, **settings)


def test_what_fails_does_not_take_the_rest_with_it():
    images = some_images(4) * 0.8
    images[1, :, 0, 0] = 0.9
    attacks = {
        "breaking": InterpretationAttack(Saliency(Breaking(0.85))),
        "sound": InterpretationAttack(Saliency(small_cnn())),
    }
    settings = {"modes": ["topk"], "radii": [0.01], "k": 6, "step_num": 2}
    found = fragility_curves(attacks, images, **settings)
    sound = fragility_curves({"sound": attacks["sound"]}, images, **settings)
    assert torch.equal(found.values[1].nan_to_num(-9), sound.values[0].nan_to_num(-9))
    assert found.values[0, ..., 1].isnan().all()
    kept = [0, 2, 3]
    assert torch.allclose(found.values[0][..., kept], sound.values[0][..., kept], equal_nan=True)
    (failure,) = found.failures
    assert (failure.method, failure.mode, failure.images) == ("breaking", "topk", (1,))
    assert failure.reason == "RuntimeError: too bright"
    assert "too bright" in found.to_markdown()
    with pytest.raises(RuntimeError, match="too bright"):
        fragility_curves({"breaking": InterpretationAttack(Saliency(Breaking(0.0)))}, images)


def test_normalised_images_are_judged_as_pixels(model):
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])
    attack = InterpretationAttack.normalized(Saliency(model), mean=mean, std=std)
    pixels = some_images(2)
    images = (pixels - mean.double().view(1, 3, 1, 1)) / std.double().view(1, 3, 1, 1)
    found = fragility_curves({"a": attack}, images, modes=["random"], radii=[0.05], **WALK)
    moved = attack.perturb(images, 0.05, mode="random", **WALK)
    after = moved * std.double().view(1, 3, 1, 1) + mean.double().view(1, 3, 1, 1)
    at = {"mode": "random", "radius": 0.05}
    linf = (after - pixels).abs().flatten(1).amax(1)
    torch.testing.assert_close(found.scores("a", "linf", **at), linf)
    ssim = found.scores("a", "ssim", **at)
    assert (ssim < 1).any() and (ssim > 0.5).all()
    torch.testing.assert_close(ssim, structural_similarities(pixels, after))


def test_the_model_is_as_it_was(attacks, model):
    model.train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    fragility_curves(attacks, some_images(2), modes=["topk"], radii=[0.1], **WALK)
    assert model.training and torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())
    model.eval()
    model[0].weight.grad = None


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"radii": []}, InputError, "an attack, a mode and a radius; there are 1, 3 and 0"),
        ({"radii": [-0.1]}, InputError, r"finite numbers of 0 or more, .* got \[-0.1\]"),
        ({"radii": [0.1, 0.1]}, InputError, "radii are different"),
        ({"radii": [math.nan]}, InputError, "radii are different finite numbers"),
        ({"modes": "topk"}, InputError, "a sequence of objectives, got the string 'topk'"),
        ({"modes": ["best"]}, InputError, "mode is one of 'topk'"),
        ({"modes": ["topk", "topk"]}, InputError, "each mode is given once"),
        ({"modes": ["targeted"]}, InputError, "needs a region"),
        ({"step_num": 0}, InputError, "step_num and batch_size are 1 or more, got 0 and 8"),
        ({"batch_size": 0}, InputError, "got 100 and 0"),
        ({"target": [1, 2]}, TargetError, "target is one class or 3, one for each image; got 2"),
        ({"target": 3, "step_num": 1}, TargetError, "out of range"),
        ({"k": 65, "step_num": 1}, InputError, "between 1 and the 64 pixels"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(model, settings, error, message):
    attacks = {"gradient": InterpretationAttack(Saliency(model))}
    with pytest.raises(error, match=message):
        fragility_curves(attacks, some_images(3), **settings)


@pytest.mark.usefixtures("as_users_call")
def test_other_things_than_attacks_and_images_are_refused(model, attacks):
    with pytest.raises(InputError, match="'a' is no InterpretationAttack but a Saliency; pass"):
        fragility_curves({"a": Saliency(model)}, some_images(2))
    with pytest.raises(ShapeError, match="expected images"):
        fragility_curves(attacks, torch.rand(3, 8, 8))
    endless = InterpretationAttack(Saliency(model), lower_bound=-math.inf, upper_bound=math.inf)
    with pytest.raises(InputError, match="what is black and what is white, and are finite"):
        fragility_curves({"a": endless}, some_images(1), step_num=1)


def test_asking_for_what_was_not_measured_names_what_was(curves):
    at = {"mode": "topk", "radius": 0.1}
    with pytest.raises(InputError, match="no method 'LRP' in these curves; they are 'gradient'"):
        curves.mean("LRP", "intersection", **at)
    with pytest.raises(InputError, match="no measure 'auc' in these curves; they are 'inters"):
        curves.mean("gradient", "auc", **at)
    with pytest.raises(InputError, match=r"no radius 0.5 in these curves; they are 4/255, 0.1"):
        curves.mean("gradient", "intersection", mode="topk", radius=0.5)
    with pytest.raises(InputError, match="there is no judge in these curves"):
        curves.mean("gradient", "intersection", judge="other", **at)


def test_it_agrees_with_the_metrics_on_maps(model):
    images = some_images(2)
    attack = InterpretationAttack(Saliency(model))
    found = fragility_curves({"a": attack}, images, modes=["topk"], radii=[0.1], **WALK)
    result = attack.run(images, 0.1, **WALK)
    pair = result.clean_maps, result.attacked_maps
    at = {"mode": "topk", "radius": 0.1}
    for measure, value in {
        "intersection": metrics.topk_intersection(*pair, 6),
        "rank_correlation": metrics.rank_correlation(*pair),
        "center_shift": metrics.center_shift(*pair),
    }.items():
        torch.testing.assert_close(found.scores("a", measure, **at), value.double())
