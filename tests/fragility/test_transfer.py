"""Images made on one network, judged by another: by hand, on tiny networks."""

import pytest
import torch
from attacked_networks import small_cnn, some_images
from captum.attr import Saliency

from captum_blackbox import InterpretationAttack, metrics
from captum_blackbox.errors import ExplanationWarning, InputError
from captum_blackbox.fragility import softened
from captum_blackbox.fragility.curves import fragility_curves
from captum_blackbox.fragility.transfer import TRANSFERRED, between_networks, transferred

WALK = {"k": 6, "step_num": 6, "step_size": 0.03}


def saliency(model, images, target):
    return Saliency(model).attribute(images.clone().requires_grad_(), target=target).detach()


def by_hand(network, clean, attacked, k):
    """Explain both by plain Captum, and compare the two maps of each image."""
    target = network(clean).argmax(1)
    maps = [saliency(network, images, target) for images in (clean, attacked)]
    with torch.no_grad():
        before, after = (network(images).softmax(1) for images in (clean, attacked))
    rows = torch.arange(len(clean))
    return {
        "intersection": metrics.topk_intersection(*maps, k),
        "rank_correlation": metrics.rank_correlation(*maps),
        "center_shift": metrics.center_shift(*maps),
        "cosine": metrics.cosine_similarity(*maps),
        "confidence": after[rows, target],
        "clean_confidence": before[rows, target],
        "label_kept": (after.argmax(1) == target).double(),
    }


@pytest.mark.parametrize("mode", ["topk", "random"])
def test_the_judge_explains_the_images_that_were_made_on_the_other_network(mode):
    one, other, images = small_cnn(), small_cnn(width=4), some_images(4)
    attack = InterpretationAttack(Saliency(one))
    found = fragility_curves(
        {"one": attack}, images, modes=[mode], radii=[0.1], batch_size=3,
        transfer_to={"other": InterpretationAttack(Saliency(other)), "itself": attack}, **WALK
    )  # fmt: skip
    moved = attack.perturb(images, 0.1, mode=mode, **WALK)
    at = {"mode": mode, "radius": 0.1}
    for measure, value in by_hand(other, images, moved, 6).items():
        scores = found.scores("one", measure, judge="other", **at)
        torch.testing.assert_close(scores, value.double(), msg=measure)
    for measure in TRANSFERRED[:5]:
        own = found.scores("one", measure, **at)
        torch.testing.assert_close(found.scores("one", measure, judge="itself", **at), own)
    assert found.mean("one", "intersection", judge="other", **at).images == 4


def test_images_become_those_of_the_other_network():
    """As for MobileNet, which takes pixels from -1 to 1, from images normalised for SqueezeNet."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    one = InterpretationAttack.normalized(Saliency(small_cnn()), mean=mean, std=std)
    other = InterpretationAttack(Saliency(small_cnn()), lower_bound=-1.0, upper_bound=1.0)
    pixels = some_images(2)
    images = (pixels - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    torch.testing.assert_close(
        between_networks(images.double(), one, other), pixels * 2 - 1, atol=1e-6, rtol=0
    )
    torch.testing.assert_close(between_networks(pixels * 2 - 1, other, one), images.double())
    assert between_networks(images, one, one) is images
    assert between_networks(images.float(), one, other).dtype == torch.float32


def test_another_network_sees_its_own_images_in_curves():
    plain, images = small_cnn(), some_images(3)

    class FromMinusOne(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small_cnn()

        def forward(self, x):
            return self.inner((x + 1) / 2)

    attack = InterpretationAttack(Saliency(plain))
    judge = InterpretationAttack(Saliency(FromMinusOne()), lower_bound=-1.0)
    found = fragility_curves(
        {"a": attack}, images, modes=["topk"], radii=[0.1], transfer_to={"same": judge}, **WALK
    )
    at = {"mode": "topk", "radius": 0.1}
    for measure in TRANSFERRED[:5]:  # the same function of the pixels
        torch.testing.assert_close(
            found.scores("a", measure, judge="same", **at), found.scores("a", measure, **at)
        )


def test_images_without_a_right_label_have_no_numbers():
    one, other, images = small_cnn(), small_cnn(width=4), some_images(6)
    label = one(images).argmax(1)
    right = other(images).argmax(1) == label
    assert 0 < int(right.sum()) < 6
    attack, judge = (InterpretationAttack(Saliency(each)) for each in (one, other))
    found = fragility_curves(
        {"a": attack}, images, label=label, modes=["topk"], radii=[0.1],
        transfer_to={"b": judge}, **WALK
    )  # fmt: skip
    at = {"mode": "topk", "radius": 0.1}
    assert found.mean("a", "intersection", **at).images == 6
    scores = found.scores("a", "intersection", judge="b", **at)
    assert torch.equal(scores.isfinite(), right)


def test_other_images_may_lose_the_label_of_the_judge():
    other, images = small_cnn(), some_images(6)
    changed = images.flip(0)
    found = transferred(InterpretationAttack(Saliency(other)), images, changed, k=6)
    expected = by_hand(other, images, changed, 6)
    assert 0 < int(expected["label_kept"].sum()) < 6
    for row, measure in enumerate(TRANSFERRED):
        torch.testing.assert_close(found[row], expected[measure].double(), msg=measure)


def test_the_judge_keeps_its_defence():
    other, images = small_cnn(width=4), some_images(2)
    moved = (images + 0.05).clamp(0, 1)
    soft = transferred(InterpretationAttack(Saliency(other), defence_beta=2.0), images, moved, k=6)
    target = other(images).argmax(1)
    with softened(other, 2.0):
        maps = [saliency(other, each, target) for each in (images, moved)]
    torch.testing.assert_close(soft[1], metrics.rank_correlation(*maps))
    torch.testing.assert_close(soft[3], metrics.cosine_similarity(*maps))
    with torch.no_grad():  # labels are those of the network as it is
        confidence = other(moved).softmax(1)[torch.arange(2), target]
    torch.testing.assert_close(soft[4], confidence)


def test_bounds_that_are_not_finite_cannot_be_translated():
    one = InterpretationAttack(Saliency(small_cnn()), upper_bound=torch.inf)
    other = InterpretationAttack(Saliency(small_cnn()))
    with pytest.raises(InputError, match="are finite"):
        between_networks(some_images(1), one, other)


def test_a_judge_without_an_explanation_says_so():
    network = small_cnn()
    torch.nn.init.zeros_(network[-1].weight)
    judge = InterpretationAttack(Saliency(network))
    with pytest.warns(ExplanationWarning, match="0 everywhere"):
        judge.run(some_images(1), 0.0)
