"""The library's own explanations under attack, and black boxes through their students."""

import pytest
import torch
from attacked_networks import small_cnn, some_images

from captum_blackbox import (
    BlackBox,
    DistilledLayerSumGradCAM,
    InterpretationAttack,
    LayerSumGradCAM,
    PatternAttribution,
    PatternNet,
    Patterns,
    metrics,
)
from captum_blackbox.errors import InputError
from captum_blackbox.metrics import topk_intersection

MODEL = small_cnn()
PATTERNS = Patterns.fit(MODEL, some_images(32, seed=9), regime_centering=True, show_progress=False)
OURS = {
    "LayerSumGradCAM": LayerSumGradCAM(MODEL),
    "DistilledLayerSumGradCAM": DistilledLayerSumGradCAM(MODEL, small_cnn()),
    "PatternNet": PatternNet(MODEL, PATTERNS),
    "PatternAttribution": PatternAttribution(MODEL, PATTERNS),
}


@pytest.mark.parametrize("name", OURS)
def test_it_is_moved_further_than_by_chance(name):
    images = some_images(4)
    attack = InterpretationAttack(OURS[name])
    found = {mode: attack.run(images, 0.1, 0.01, 15, mode=mode, k=6) for mode in ("topk", "random")}
    moved = found["topk"]
    assert moved.label_kept.all() and moved.success.any()
    assert moved.attacked.intersection.mean() < found["random"].attacked.intersection.mean()
    clean, attacked = (
        OURS[name].attribute(each, target=moved.target) for each in (images, moved.inputs)
    )
    torch.testing.assert_close(moved.attacked.intersection, topk_intersection(clean, attacked, 6))


def test_the_label_of_a_black_box_is_judged_by_the_box_and_not_by_its_student():
    images = some_images(4)
    asked = []

    def ask(batch):
        asked.append(len(batch))
        return MODEL(batch)

    box = BlackBox(ask, output="logits")
    student = small_cnn()
    with torch.no_grad():
        student[5].bias += torch.tensor([0.0, 100.0, 0.0])  # always predicts class 1
    attack = InterpretationAttack(DistilledLayerSumGradCAM(box, student))
    result = attack.run(images, 0.1, 0.01, 5, k=6)
    expected = MODEL(images).argmax(1)
    assert (expected != 1).any()
    assert torch.equal(result.label, expected) and result.label_kept.all()
    # The clean images, each step, and once at the end.
    assert sum(asked) == 4 * (1 + 5 + 1)
    asked.clear()
    with pytest.raises(InputError, match="radius"):
        attack.run(images, -0.1)
    assert asked == []
    probabilities = box(result.inputs).gather(1, expected[:, None])[:, 0]
    torch.testing.assert_close(result.attacked.confidence, probabilities.double())


def test_the_games_judge_the_explanation_of_an_attacked_image():
    images = some_images(4)
    attack = InterpretationAttack(LayerSumGradCAM(MODEL))
    result = attack.run(images, 0.1, 0.01, 15, k=6)
    box = BlackBox(MODEL, output="logits")
    maps = attack.attribute(images, radius=0.1, step_size=0.01, step_num=15, k=6)
    torch.testing.assert_close(maps, result.attacked_maps)
    for attributions in (result.clean_maps, maps):
        game = metrics.deletion(box, images, attributions, result.label, step=8)
        assert game.auc.shape == (4,) and game.auc.isfinite().all()
