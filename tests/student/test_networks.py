"""Students by name."""

import pytest
import torch
from torch import nn

from captum_blackbox import BlackBox, DistilledLayerSumGradCAM
from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.student.networks import STUDENTS, student_network


@pytest.mark.parametrize("size", [8, 28, 33, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_small_cnn_takes_images_of_many_sizes(size, channels):
    student = student_network("small_cnn", 7, channels)
    assert student(torch.rand(2, channels, size, size)).shape == (2, 7)
    assert sum(isinstance(each, nn.Conv2d) for each in student.modules()) == 6
    assert 200_000 < sum(each.numel() for each in student.parameters()) < 400_000


def test_the_small_cnn_needs_four_pixels_a_side():
    student = student_network("small_cnn", 3).eval()
    assert student.stages(torch.rand(1, 3, 8, 8)).shape[2:] == (2, 2)
    assert student(torch.rand(1, 3, 4, 4)).shape == (1, 3)
    with pytest.raises(ShapeError, match="need 4 × 4 pixels or more, got 9 × 3; enlarge them"):
        student(torch.rand(1, 3, 9, 3))
    explainer = DistilledLayerSumGradCAM(
        BlackBox(lambda x: x[:, :, 0, 0], output="logits"), student
    )
    with pytest.raises(ShapeError, match="student cannot take images of shape.*4 × 4 pixels"):
        explainer.distill(torch.rand(4, 3, 3, 3), show_progress=False)


@pytest.mark.parametrize("name", STUDENTS)
def test_every_student_takes_any_number_of_channels_and_learns(name):
    for channels in (2, 3):
        student = student_network(name, 5, channels).eval()
        logits = student(torch.rand(1, channels, 64, 64))
        assert logits.shape == (1, 5)
        first = next(each for each in student.modules() if isinstance(each, nn.Conv2d))
        assert torch.autograd.grad(logits.sum(), first.weight)[0].abs().sum() > 0


def test_a_student_is_repeatable_by_the_seed():
    def weights():
        torch.manual_seed(3)
        return next(student_network("squeezenet1_1", 4, 1).parameters())

    assert torch.equal(weights(), weights())


def test_an_unknown_student_is_answered_with_the_known_ones():
    with pytest.raises(InputError) as error:
        student_network("resnet19", 10)
    assert str(error.value) == (
        "a student is one of small_cnn, mobilenet_v3_small, resnet18, squeezenet1_1, got "
        "'resnet19' (did you mean 'resnet18'?)"
    )
    with pytest.raises(InputError, match="num_classes must be at least 1, got 0"):
        student_network("small_cnn", 0)
