"""The attack inside Captum's own tools for robustness."""

import pytest
import torch
from attacked_networks import small_cnn, some_images
from captum.attr import Saliency
from captum.robust import FGSM, AttackComparator, MinParamPerturbation

from captum_blackbox import InterpretationAttack, metrics


def explained(model):
    def explain(images, target):
        leaf = images.detach().clone().requires_grad_()
        return Saliency(model).attribute(leaf, target=target)

    return explain


@pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients")  # FGSM's
def test_attack_comparator_takes_it_beside_captums_own_attacks():
    model, images = small_cnn(), some_images(2)
    target = model(images).argmax(1)
    clean = explained(model)(images, target)

    def overlap(model_out, target):
        return metrics.topk_intersection(clean, model_out, 6)

    comparator = AttackComparator(explained(model), overlap)
    comparator.add_attack(
        InterpretationAttack(Saliency(model)),
        "interpretation",
        attack_kwargs={"radius": 0.1, "step_num": 15, "k": 6},
        additional_attack_arg_names=["target"],
    )
    comparator.add_attack(
        FGSM(model, lower_bound=0, upper_bound=1),
        "fgsm",
        attack_kwargs={"epsilon": 0.1},
        additional_attack_arg_names=["target"],
    )
    found = comparator.evaluate(images, additional_forward_args=target, target=target)
    result = InterpretationAttack(Saliency(model)).run(images, 0.1, step_num=15, k=6, target=target)
    assert found.pop("Original").tolist() == [1, 1]
    means = {name: float(each["mean"].mean()) for name, each in found.items()}
    assert means["interpretation"] == float(result.attacked.intersection.mean()) < 1
    assert means["fgsm"] <= 1


def test_the_smallest_radius_that_breaks_an_explanation():
    model, image = small_cnn(), some_images(1)
    target = model(image).argmax(1)
    clean = explained(model)(image, target)

    def still_agrees(model_out, target, **_):
        return bool(metrics.topk_intersection(clean, model_out, 6) >= 0.5)

    search = MinParamPerturbation(
        lambda images: explained(model)(images, target),
        InterpretationAttack(Saliency(model)),
        arg_name="radius",
        arg_min=0.0,
        arg_max=0.2,
        arg_step=0.01,
        mode="linear",
        correct_fn=still_agrees,
    )
    settings = {"step_num": 15, "k": 6, "target": target}
    attacked, smallest = search.evaluate(image, target=target, attack_kwargs=settings)
    assert 0 < smallest < 0.2
    assert metrics.topk_intersection(clean, explained(model)(attacked, target), 6) < 0.5
    attack = InterpretationAttack(Saliency(model))
    below = attack.perturb(image, smallest - 0.01, step_num=15, k=6, target=target)
    assert metrics.topk_intersection(clean, explained(model)(below, target), 6) >= 0.5


def test_calling_it_perturbs():
    attack, images = InterpretationAttack(Saliency(small_cnn())), some_images(2)
    assert torch.equal(attack(images, 0.1, step_num=3), attack.perturb(images, 0.1, step_num=3))
    (several,) = attack((images,), 0.1, step_num=3)
    assert torch.equal(several, attack.perturb(images, 0.1, step_num=3))
