"""What a box is made of and given: images, preprocessing, settings, devices."""

import numpy as np
import pytest
import torch
from counted import Recorder, numbered
from torch import nn

from captum_blackbox import BlackBox
from captum_blackbox.errors import InputError, ShapeError


@pytest.mark.parametrize("cache", [None, ":memory:"])
def test_the_callers_images_are_not_written_to(cache):
    def fn(x):
        x += 1
        return x.flatten(1)

    def preprocess(x):
        return x.mul_(2)

    for settings in ({}, {"preprocess": preprocess}):
        images = numbered(1, 2)
        box = BlackBox(fn, output="logits", cache=cache, **settings)
        expected = 2 * images + 1 if settings else images + 1
        assert torch.equal(box.answers(images), expected.flatten(1))
        assert torch.equal(images, numbered(1, 2))
        assert torch.equal(box.answers(images), expected.flatten(1))


def test_preprocessing_may_change_size_and_dtype_and_sees_the_batches():
    seen = []

    def preprocess(x):
        seen.append(len(x))
        return x[..., :1, :1].double()

    fn = Recorder()
    box = BlackBox(fn, output="logits", batch_size=2, preprocess=preprocess)
    assert box.answers(numbered(1, 2, 3)).dtype == torch.float64
    assert [tuple(batch.shape) for batch in fn.batches] == [(2, 2, 1, 1), (1, 2, 1, 1)]
    assert seen == [2, 1]


@pytest.mark.parametrize(
    ("preprocess", "got"),
    [(lambda x: x[0], r"\(2, 2, 2\)"), (lambda x: x.numpy(), "ndarray"), (torch.sum, r"\(\)")],
    ids=["another length", "an array", "a number"],
)
def test_preprocessing_must_keep_the_rows(preprocess, got):
    box = BlackBox(Recorder(), output="logits", preprocess=preprocess)
    message = f"preprocess must return a tensor with one row for each of 3 images, got {got}"
    with pytest.raises(InputError, match=message):
        box(numbered(1, 2, 3))
    assert box.queries == 0


@pytest.mark.parametrize("cache", [None, ":memory:"])
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_images_arrive_in_their_dtype_and_answers_on_their_device(dtype, cache, device):
    seen = []

    def fn(x):
        seen.append((x.dtype, x.device.type, x.requires_grad, torch.is_grad_enabled()))
        return Recorder.naive(x)

    images = numbered(1, 2, dtype=dtype).to(device)
    box = BlackBox(fn, output="logits", cache=cache, device="cpu")
    answers = box.answers(images)
    assert seen == [(dtype, "cpu", False, False)]
    assert answers.dtype == dtype
    assert answers.device.type == device
    assert torch.equal(answers, Recorder.naive(images))
    scores = box(images)
    assert scores.device.type == device
    assert scores.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


@pytest.mark.parametrize("kind", ["parameter", "buffer"])
def test_a_module_gets_its_images_on_its_own_device(kind):
    class Elsewhere(nn.Module):
        def __init__(self):
            super().__init__()
            weight = torch.ones(1, device="meta")
            if kind == "buffer":
                self.register_buffer("weight", weight)
            else:
                self.weight = nn.Parameter(weight)

        def forward(self, x):
            assert x.device.type == "meta"
            return torch.zeros(x.shape[0], 3)

    box = BlackBox(Elsewhere(), output="logits")
    assert box(numbered(1)).device.type == "cpu"


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 1, 2, 2)), "expected a tensor of images (N, C, H, W), got ndarray"),
        (torch.zeros(1, 2, 2), "expected images (N, C, H, W), got shape (1, 2, 2)"),
        (torch.zeros(0, 1, 2, 2), "expected at least one image, got shape (0, 1, 2, 2)"),
        (
            torch.zeros(1, 1, 2, 2, dtype=torch.uint8),
            "expected floating-point images, got torch.uint8; convert with images.float() / 255",
        ),
    ],
    ids=["array", "no batch", "empty", "bytes"],
)
def test_what_are_no_images_is_refused(images, message, as_users_call):
    box = BlackBox(Recorder(), output="logits")
    with pytest.raises(ShapeError) as raised:
        box(images)
    assert str(raised.value) == message
    assert box.queries == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"output": "scores"},
            "output is one of 'logits', 'probs', 'log_probs', 'topk', 'labels', got 'scores'",
        ),
        (
            {"output": "labels"},
            "output='labels' does not tell how many classes there are; give num_classes",
        ),
        (
            {"output": "topk"},
            "output='topk' does not tell how many classes there are; give num_classes",
        ),
        ({"num_classes": 0}, "num_classes must be an integer and at least 1, got 0"),
        ({"batch_size": 0}, "batch_size must be an integer and at least 1, got 0"),
        ({"batch_size": 2.5}, "batch_size must be an integer and at least 1, got 2.5"),
        ({"query_budget": -1}, "query_budget must be an integer and at least 0, got -1"),
        ({"fn": torch.zeros(2)}, "a black box wraps something callable, got Tensor"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_used_say_why(settings, message, as_users_call):
    arguments = {"fn": Recorder(), "output": "logits", **settings}
    with pytest.raises(InputError) as raised:
        BlackBox(arguments.pop("fn"), **arguments)
    assert str(raised.value) == message


def test_sizes_may_be_numbers_of_numpy(as_users_call):
    sizes = {"num_classes": np.int64(3), "batch_size": np.int32(1)}
    box = BlackBox(Recorder(), output="logits", cache=":memory:", **sizes)
    assert box(numbered(1, 2)).shape == (2, 3)
