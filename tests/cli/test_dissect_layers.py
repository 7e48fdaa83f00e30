"""Which layer is dissected by default, and networks with random weights."""

import pytest
import torch
from torch import nn

from captum_blackbox.cli.dissect_layers import last_layer_with_maps, with_random_weights
from captum_blackbox.errors import LayerError


def test_the_last_layer_with_maps_is_the_innermost_that_runs_once():
    relu = nn.ReLU(inplace=True)
    block = nn.Sequential(nn.Conv2d(3, 4, 3), relu, nn.Conv2d(4, 4, 3), relu)
    image = torch.rand(1, 3, 9, 9)
    assert last_layer_with_maps(nn.Sequential(block, nn.Flatten()), image) == "0"
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    assert last_layer_with_maps(nn.Sequential(own, nn.AdaptiveAvgPool2d(1)), image) == "0.1"
    with pytest.raises(LayerError, match="has no layer that puts out maps"):
        last_layer_with_maps(nn.Sequential(nn.Flatten(), nn.Linear(243, 2)), image)


class Token(nn.Module):
    """A parameter of its own, and one of a layer."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.arange(64.0))
        self.layer = nn.Linear(3, 3)


def test_random_weights_are_new_seeded_and_leave_all_else_alone():
    network, state = Token(), torch.random.get_rng_state()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    one, same, other = (with_random_weights(network, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
        assert torch.equal(one[name], same[name])
        assert not torch.equal(one[name], value)
        assert not torch.equal(one[name], other[name])
    assert torch.equal(one["token"].sort().values, before["token"])
