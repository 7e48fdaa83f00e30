"""DistilledLayerSumGradCAM: whose class, whose layers, what it costs, what it keeps."""

import pytest
import torch
from networks import State, TwoConvs
from torch import nn

from captum_blackbox import BlackBox, DistilledLayerSumGradCAM, LayerSumGradCAM
from captum_blackbox.errors import ArtifactError, ExplanationWarning, InputError, TargetError
from captum_blackbox.metrics import deletion, insertion


class Says(nn.Module):
    """Scores class ``c`` highest, whatever it sees."""

    def __init__(self, c):
        super().__init__()
        self.c = c

    def forward(self, x):
        return nn.functional.one_hot(torch.full((len(x),), self.c), 4).float() * 5


def test_it_is_the_layer_sum_of_the_student():
    student, images = TwoConvs().eval(), torch.rand(2, 3, 11, 8)
    for normalize in ("none", "max"):
        explainer = DistilledLayerSumGradCAM(
            BlackBox(Says(1), output="logits"), student, ["conv2"], normalize=normalize
        )
        expected = LayerSumGradCAM(student, ["conv2"], normalize=normalize)
        torch.testing.assert_close(
            explainer.attribute(images, target=2), expected.attribute(images, target=2)
        )
        weights = {"conv2": torch.tensor([1.0, 3.0])}
        torch.testing.assert_close(
            explainer.attribute(images, target=2, layer_weights=weights),
            expected.attribute(images, target=2, layer_weights=weights),
        )


def test_the_class_explained_is_the_one_the_box_predicts_and_disagreement_is_warned_of_once():
    student, images = TwoConvs().eval(), torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        student.linear.bias[:] = torch.tensor([0.0, 0, 9, 0])
    box = BlackBox(Says(1), output="logits")
    explainer = DistilledLayerSumGradCAM(box, student)
    message = "the student predicts another class than the black box for 2 of 2 images"
    with pytest.warns(ExplanationWarning, match=message):
        maps = explainer.attribute(images)
    assert box.queries == 2
    torch.testing.assert_close(maps, LayerSumGradCAM(student).attribute(images, target=1))
    explainer.attribute(images)  # filterwarnings = error: a second warning would raise
    explainer.attribute(images, target=1)
    assert box.queries == 4
    assert explainer.agreement(images) == 0.0


def test_a_student_that_agrees_is_not_warned_of():
    student, images = TwoConvs().eval(), torch.rand(4, 3, 8, 8)
    explainer = DistilledLayerSumGradCAM(BlackBox(student, output="logits"), student)
    explainer.attribute(images)
    assert explainer.agreement(images) == 1.0


def test_a_target_costs_no_query():
    box = BlackBox(TwoConvs(), output="logits", query_budget=0)
    maps = DistilledLayerSumGradCAM(box, TwoConvs()).attribute(torch.rand(1, 3, 8, 8), target=3)
    assert maps.shape == (1, 1, 8, 8)
    with pytest.raises(TargetError, match="target 4 is out of range for 4 classes"):
        DistilledLayerSumGradCAM(box, TwoConvs()).attribute(torch.rand(1, 3, 8, 8), target=4)


def test_the_student_may_see_smaller_images_and_the_map_has_the_size_of_the_boxs():
    student, images = TwoConvs().eval(), torch.rand(2, 3, 16, 12)

    def smaller(x):
        return nn.functional.avg_pool2d(x, 2)

    explainer = DistilledLayerSumGradCAM(
        BlackBox(Says(1), output="logits"), student, student_preprocess=smaller
    )
    coarse = LayerSumGradCAM(student).raw_maps(smaller(images), 1)
    expected = sum(
        nn.functional.interpolate(each, size=(16, 12), mode="bilinear", align_corners=False)
        for each in coarse.values()
    )
    torch.testing.assert_close(explainer.attribute(images, target=1), expected.detach())


def test_both_models_are_left_as_they_were():
    teacher, student = TwoConvs().train(), TwoConvs(inplace=True).train()
    before = State(teacher), State(student)
    explainer = DistilledLayerSumGradCAM(BlackBox(teacher, output="logits"), student)
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        explainer.attribute(images, target=1)
        explainer.attribute_per_layer(images, target=1)
        explainer.agreement(images)
        for kind in ("energy", "deletion", "leave_one_out"):
            explainer.layer_importance(images, target=1, kind=kind, step=16)
    assert State(teacher).differences(before[0]) == []
    assert State(student).differences(before[1]) == []


def test_layer_importance_by_its_definitions():
    model, images = TwoConvs().eval(), torch.rand(3, 3, 8, 8)
    box = BlackBox(model, output="logits")
    explainer = DistilledLayerSumGradCAM(box, model)
    layers = explainer.attribute_per_layer(images, target=1)
    total = explainer.attribute(images, target=1)

    energy = explainer.layer_importance(images, target=1)
    for i in range(3):
        shares = [float(each[i].sum() / total[i].sum()) for each in layers.values()]
        torch.testing.assert_close(
            torch.tensor([float(each[i]) for each in energy.values()]), torch.tensor(shares)
        )

    alone = explainer.layer_importance(images, target=1, kind="deletion", step=7)
    for name, each in layers.items():
        expected = deletion(model, images, each, 1, step=7).auc
        torch.testing.assert_close(alone[name], expected)

    without = explainer.layer_importance(images, target=1, kind="leave_one_out", step=7)
    base = deletion(model, images, total, 1, step=7).auc
    torch.testing.assert_close(
        without["conv1"], deletion(model, images, layers["conv2"], 1, step=7).auc - base
    )


def test_learned_weights_by_their_definition():
    model, images = TwoConvs().eval(), torch.rand(4, 3, 8, 8)
    with torch.no_grad():
        model.linear.weight.mul_(20)
    explainer = DistilledLayerSumGradCAM(BlackBox(model, output="logits"), model)
    layers = explainer.attribute_per_layer(images, target=1)
    gaps = {}
    for name, each in layers.items():
        inserted = insertion(model, images, each, 1, step=7).auc.mean()
        deleted = deletion(model, images, each, 1, step=7).auc.mean()
        gaps[name] = max(0.0, float(inserted - deleted))
    assert sum(gaps.values()) > 0
    weights = explainer.fit_layer_weights(images, target=1, step=7)
    assert weights == pytest.approx({n: gap / sum(gaps.values()) for n, gap in gaps.items()})
    weighted = explainer.attribute(images, target=1, layer_weights=weights)
    torch.testing.assert_close(weighted, sum(weights[name] * layers[name] for name in layers))


def test_layers_that_explain_nothing_have_no_weights():
    box = BlackBox(Says(1), output="logits")
    message = "no layer's map raises the score faster than it lowers it"
    with pytest.raises(InputError, match=message):
        DistilledLayerSumGradCAM(box, TwoConvs()).fit_layer_weights(torch.rand(2, 3, 8, 8), 1)


def test_energy_of_half_precision_images_is_a_number():
    model = TwoConvs().eval().half()
    with torch.no_grad():
        model.linear.weight.mul_(1000)
    explainer = DistilledLayerSumGradCAM(BlackBox(model, output="logits"), model)
    shares = explainer.layer_importance(torch.rand(1, 3, 224, 224).half(), target=1)
    torch.testing.assert_close(sum(shares.values()), torch.ones(1))


def test_energy_does_not_depend_on_the_normalisation():
    model, images = TwoConvs().eval(), torch.rand(2, 3, 8, 8)
    box = BlackBox(model, output="logits")
    plain = DistilledLayerSumGradCAM(box, model).layer_importance(images, target=1)
    scaled = DistilledLayerSumGradCAM(box, model, normalize="max").layer_importance(images, 1)
    torch.testing.assert_close(plain, scaled)


def test_a_saved_explainer_comes_back(tmp_path):
    torch.manual_seed(3)
    box = BlackBox(TwoConvs(), output="logits")
    explainer = DistilledLayerSumGradCAM(box, TwoConvs(), ["conv2"], normalize="l1")
    report = explainer.distill(
        torch.rand(16, 3, 8, 8), epochs=1, min_fidelity=0.0, show_progress=False
    )
    explainer.save(tmp_path / "explainer.safetensors")
    other = TwoConvs()
    loaded = DistilledLayerSumGradCAM.load(tmp_path / "explainer.safetensors", box, other)
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(loaded.attribute(images, target=0), explainer.attribute(images, target=0))
    assert loaded.report == report
    assert loaded.grad_cam.normalize == "l1" and list(loaded.grad_cam.layers) == ["conv2"]


def test_a_file_of_something_else_is_refused_and_the_student_stays(tmp_path):
    path = tmp_path / "explainer.safetensors"
    box = BlackBox(TwoConvs(), output="logits")
    DistilledLayerSumGradCAM(box, TwoConvs()).save(path)
    other = TwoConvs(classes=7)
    before = State(other)
    message = (
        r"holds another student than TwoConvs: 'linear.bias' is \(4,\) in the file, \(7,\) here"
    )
    with pytest.raises(ArtifactError, match=message):
        DistilledLayerSumGradCAM.load(path, box, other)
    labels = BlackBox(TwoConvs(), output="labels", num_classes=4)
    with pytest.raises(ArtifactError, match="output is 'logits' in the file, 'labels' here"):
        DistilledLayerSumGradCAM.load(path, labels, TwoConvs())
    assert State(other).differences(before) == []


def test_what_is_no_box_is_refused(as_users_call):
    with pytest.raises(InputError, match=r"expected a BlackBox, got function; wrap a function as"):
        DistilledLayerSumGradCAM(lambda x: x, TwoConvs())
