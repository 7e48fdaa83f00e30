import pytest
import torch
from captum._utils.common import _select_targets

from captum_blackbox._compat import class_targets, select_targets
from captum_blackbox.errors import TargetError


@pytest.mark.parametrize(
    "target",
    [2, torch.tensor(2), torch.tensor([2]), torch.tensor([0, 2]), [0, 2], (2,), [(0,), (2,)]],
    ids=repr,
)
def test_the_target_forms_of_2d_output_select_what_captum_selects(target):
    output = torch.randn(2, 3)
    assert torch.equal(select_targets(output, target), _select_targets(output, target))


@pytest.mark.parametrize("target", [(1, 2), [(0, 1), (1, 2)]], ids=repr)
def test_the_target_forms_of_3d_output_select_what_captum_selects(target):
    output = torch.randn(2, 2, 3)
    assert torch.equal(select_targets(output, target), _select_targets(output, target))


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_number_per_sample_needs_no_target(shape):
    output = torch.randn(shape)
    assert torch.equal(select_targets(output, None), output.flatten())


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, r"target 3 is out of range for 3 classes \(0 … 2\)"),
        (-1, r"target -1 is out of range for 3 classes \(0 … 2\)"),
        ([0, 1, 2], r"expected one target or 2 of them, one per sample, got shape \(3,\)"),
        (torch.zeros(2, 1).long(), r"expected one target or 2 of them.*got shape \(2, 1\)"),
        (1.0, r"a target is an int, a list of ints or a tensor of ints, got 1.0 of type float"),
        (True, "got True of type bool"),
        (torch.tensor([0.0, 1.0]), "a target holds class numbers, got a tensor of torch.float32"),
        ((0, 1), r"target \(0, 1\) names 2 dimensions, the output has one"),
    ],
    ids=repr,
)
def test_a_wrong_target_says_what_is_wrong(target, message):
    with pytest.raises(TargetError, match=message):
        class_targets(target, 2, 3)


def test_a_target_that_leaves_several_numbers_is_refused():
    with pytest.raises(
        TargetError, match=r"leaves \(3,\) numbers per sample of an output of shape"
    ):
        select_targets(torch.randn(2, 2, 3), 1)
    with pytest.raises(
        TargetError, match=r"target is None, but the model gives \(3,\) numbers per"
    ):
        select_targets(torch.randn(2, 3), None)
    with pytest.raises(TargetError, match=r"target \(5, 0\) does not fit an output of shape"):
        select_targets(torch.randn(2, 2, 3), (5, 0))
