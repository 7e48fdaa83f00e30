"""Many questions out of a few images."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close
from torch.utils.data import TensorDataset

from captum_blackbox.errors import InputError, ShapeError
from captum_blackbox.student.distillation.transfer_set import TransferSet


def images(count=3, channels=3, height=12, width=10):
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))


@given(st.integers(0, 199), st.integers(1, 4))
def test_a_question_is_a_function_of_seed_and_index_alone(index, channels):
    pictures = images(channels=channels)
    questions = TransferSet(pictures, 200, seed=5)
    torch.manual_seed(index)
    before = torch.get_rng_state()
    first = questions[index]
    assert torch.equal(torch.get_rng_state(), before)
    assert first.shape == pictures.shape[1:]
    assert first.dtype == pictures.dtype
    assert torch.equal(TransferSet(pictures, 1000, seed=5)[index], first)
    if index >= 3:
        assert not torch.equal(TransferSet(pictures, 200, seed=6)[index], first)
        assert not torch.equal(questions[index - 1], first)


def test_the_first_questions_are_the_images_themselves():
    pictures = images()
    questions = TransferSet(pictures, 20)
    for index in range(3):
        assert torch.equal(questions[index], pictures[index])
    questions[0].zero_()
    assert pictures[0].abs().sum() > 0


@given(st.floats(-50, 50), st.floats(0.1, 30))
def test_values_stay_in_the_range_of_the_images(shift, scale):
    pictures = images() * scale + shift
    questions = TransferSet(pictures, 40, blank=0.0)
    every = torch.stack(list(questions))
    slack = 1e-4 * (abs(shift) + scale)
    assert pictures.min() - slack <= every.min()
    assert every.max() <= pictures.max() + slack
    assert every.isfinite().all()


def test_nothing_happens_where_every_step_is_off():
    pictures = images()
    off = {"crop": 1.0, "flip": False, "jitter": 0.0, "mix": 0.0, "blank": 0.0}
    questions = TransferSet(pictures, 9, **off)
    assert_close(torch.stack(list(questions)), pictures.repeat(3, 1, 1, 1), rtol=0, atol=0)


def test_blanked_parts_hold_the_blank_value_and_the_rest_the_image():
    pictures = images(channels=2) + 10  # far from what is blanked
    value = torch.tensor([1.0, -1.0])
    off = {"crop": 1.0, "flip": False, "jitter": 0.0, "mix": 0.0}
    questions = TransferSet(pictures, 200, blank=1.0, blank_value=value, **off)
    shares = []
    for index in range(3, 200):
        blanked = (questions[index] == value[:, None, None]).all(0)
        kept = (questions[index] == pictures[index % 3]).all(0)
        assert not (blanked & kept).any()
        shares.append(float(blanked.float().mean()))
        between = questions[index][:, ~(blanked | kept)]
        assert (between >= -1).all()
        assert (between <= 11).all()
    # Any share of the image, from nothing to everything.
    assert min(shares) < 0.1
    assert max(shares) > 0.9
    assert 0.25 < sum(shares) / len(shares) < 0.75


def test_a_flip_and_a_blend_are_what_they_say():
    pictures = images(count=2)
    off = {"crop": 1.0, "jitter": 0.0, "blank": 0.0}
    flipped = TransferSet(pictures, 60, mix=0.0, **off)
    seen = {torch.equal(flipped[i], pictures[i % 2].flip(-1)) for i in range(2, 60)}
    assert seen == {True, False}
    low, high = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    blends = TransferSet(torch.cat([low, high]), 100, mix=1.0, **off)
    levels = torch.stack([blends[i].mean() for i in range(2, 100)])
    assert ((levels > 0.01) & (levels < 0.99)).float().mean() > 0.3


def test_it_takes_a_data_set_of_pairs():
    pictures = images()
    pairs = TensorDataset(pictures, torch.arange(3))
    assert torch.equal(TransferSet(pairs, 50)[40], TransferSet(pictures, 50)[40])
    assert TransferSet(pictures.double(), 50)[40].dtype == torch.float64


def test_what_cannot_be_used_is_named():
    with pytest.raises(InputError, match="there is no image to vary; give at least one"):
        TransferSet(images(count=0), 10)
    with pytest.raises(InputError, match=r"mix must be from 0 to 1, got 1\.5"):
        TransferSet(images(), 10, mix=1.5)
    with pytest.raises(InputError, match="size must not be negative, got -1"):
        TransferSet(images(), -1)
    with pytest.raises(IndexError, match="question 10 is out of range for 10 questions"):
        TransferSet(images(), 10)[10]
    with pytest.raises(ShapeError, match=r"got torch.uint8 \(3, 4, 4\) for image 0"):
        TransferSet(torch.zeros(2, 3, 4, 4, dtype=torch.uint8), 10)[0]
    mixed = TransferSet([torch.rand(1, 4, 4), torch.rand(1, 5, 5)], 30, mix=1.0)
    with pytest.raises(ShapeError, match=r"images of one size can be mixed, got \(1, "):
        list(mixed)
