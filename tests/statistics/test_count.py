"""How much was seen."""

import pytest
import torch

from captum_blackbox.errors import ArtifactError
from captum_blackbox.statistics import Count


def counted(*sizes):
    count = Count()
    for size in sizes:
        count.update(size)
    return count


def test_batches_and_inputs_are_counted():
    assert (Count().batches, Count().inputs) == (0, 0)
    assert (counted(32, 32, 5).batches, counted(32, 32, 5).inputs) == (3, 69)
    assert isinstance(counted(2).inputs, int)


def test_merging_adds_and_an_empty_one_adds_nothing():
    count, other = counted(3), counted(4, 5)
    count.merge(other)
    count.merge(count.empty())
    assert (count.batches, count.inputs, other.batches, other.inputs) == (3, 12, 2, 9)


def test_a_state_is_taken_up_as_a_copy():
    count, other = counted(7), Count()
    other.load_state(count.state())
    other.update(1)
    assert (other.batches, other.inputs) == (2, 8)
    assert (count.batches, count.inputs) == (1, 7)
    with pytest.raises(ArtifactError, match="it lacks 'seen' and has 'count' beside"):
        other.load_state({"count": torch.zeros(2)})


def test_many_inputs_do_not_overflow():
    count = counted(2**40, 2**40)
    assert count.inputs == 2**41
