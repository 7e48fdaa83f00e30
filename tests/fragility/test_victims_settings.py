"""Further arguments of a network, repeated with its images, and attacks that can be pickled."""

import pickle

import captum.attr as captum
import pytest
import torch
from attacked_networks import small_cnn, some_images
from torch import nn
from torch.testing import assert_close

from captum_blackbox import InterpretationAttack
from captum_blackbox.fragility.victims import victim_of
from captum_blackbox.fragility.victims.settings import interleaved, repeated


class Shifted(nn.Module):
    """Scores of images plus a number each, seen through a table that is the same for all."""

    def __init__(self):
        super().__init__()
        self.inner = small_cnn()

    def forward(self, x, shift, table):
        assert len(x) == len(shift) and table.shape == (5, 3)
        return self.inner(x + shift.view(-1, 1, 1, 1)) @ table.T


def test_only_what_has_a_row_for_each_image_is_repeated():
    rows, table, word = torch.arange(6).view(3, 2), torch.arange(5), "x"
    number = torch.tensor(3)
    again = repeated((rows, table, number, word), 2, 3)
    assert torch.equal(again[0], torch.cat([rows, rows])) and again[1:] == (table, number, word)
    between = interleaved((rows, table, number, word), 2, 3)
    assert torch.equal(between[0], rows[[0, 0, 1, 1, 2, 2]])
    assert between[1:] == (table, number, word)


@pytest.mark.parametrize(
    ("attribution", "given"),
    [
        (captum.IntegratedGradients, {"n_steps": 4}),
        (lambda model: captum.NoiseTunnel(captum.Saliency(model)), {"nt_samples": 3}),
    ],
)
def test_maps_of_a_network_with_a_table_are_those_of_the_network_that_holds_it(attribution, given):
    model, images = Shifted(), some_images(3)
    shift, table = torch.tensor([0.1, -0.2, 0.3]).double(), torch.rand(5, 3).double()
    target = torch.tensor([4, 0, 2])
    victim = victim_of(attribution(model), attribute_kwargs=given)
    maps = victim.explain(images, target, (shift, table)).maps
    for row in range(3):
        holds = nn.Sequential(small_cnn(), nn.Linear(3, 5, bias=False)).double()
        holds[1].weight.data.copy_(table)

        class Moved(nn.Module):
            def __init__(self, inner, by):
                super().__init__()
                self.inner, self.by = inner, by

            def forward(self, x):
                return self.inner(x + self.by)

        own = victim_of(attribution(Moved(holds, shift[row])), attribute_kwargs=given)
        alone = own.explain(images[row : row + 1], target[row : row + 1]).maps
        assert_close(maps[row], alone[0])


KINDS = {
    "saliency": (captum.Saliency, {}),
    "signed saliency": (captum.Saliency, {"abs": False}),
    "input x gradient": (captum.InputXGradient, {}),
    "integrated gradients": (captum.IntegratedGradients, {"n_steps": 4}),
    "guided": (captum.GuidedBackprop, {}),
    "deconvolution": (captum.Deconvolution, {}),
    "DeepLIFT": (captum.DeepLift, {}),
}


@pytest.mark.filterwarnings("ignore:the explanation of image 0 does not change at first order")
@pytest.mark.parametrize("kind", KINDS)
def test_an_attack_can_be_pickled(kind):
    make, given = KINDS[kind]
    attack = InterpretationAttack(make(small_cnn()), attribute_kwargs=given)
    again = pickle.loads(pickle.dumps(attack))
    images, settings = some_images(2), {"step_num": 2, "k": 6, "mode": "topk"}
    assert_close(
        again.run(images, 0.1, **settings).inputs, attack.run(images, 0.1, **settings).inputs
    )
