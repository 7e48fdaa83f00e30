"""What a method costs is counted by hooks that change nothing."""

import pytest
import torch
from compared import images, network, quietly
from networks import State
from torch import nn

from captum_blackbox import RISE, BlackBox, DistilledLayerSumGradCAM
from captum_blackbox.hooks import passes_counted


def costs(model, methods, **kwargs):
    found = quietly(model, images(), methods, ["deletion"], **kwargs)
    assert found.failures == ()
    return {name: (found.cost(name).forward, found.cost(name).backward) for name in found.methods}


def test_known_costs():
    ready = ["random", "saliency", "integrated_gradients", "grad_cam", "layer_sum", "deeplift"]
    assert costs(network(), ready) == {
        "random": (0, 0),
        "saliency": (3, 3),
        "integrated_gradients": (96, 96),
        "grad_cam": (3, 3),
        "layer_sum": (3, 3),
        "deeplift": (6, 6),  # the image and its baseline
    }
    assert costs(network(), ["smoothgrad"]) == {"smoothgrad": (48, 48)}


def test_a_black_box_is_counted_by_its_answers():
    model = network().eval()
    box = BlackBox(lambda x: model(x), output="logits")
    rise = RISE(box, masks=10, grid=2)
    assert costs(box, {"own": lambda box: rise, "other": RISE(model, masks=7, grid=2)}) == {
        "own": (30, 0),
        "other": (21, 0),
    }
    # A module in a box is seen by its hook: not counted twice.
    inside = BlackBox(model, output="logits")
    assert costs(inside, {"rise": RISE(inside, masks=10, grid=2)}) == {"rise": (30, 0)}
    assert costs(model, {"rise": lambda model: RISE(model, masks=10, grid=2)}) == {"rise": (30, 0)}


def test_answers_from_a_cache_are_free():
    model = network().eval()
    box = BlackBox(lambda x: model(x), output="logits", cache=":memory:")
    rise = RISE(box, masks=10, grid=2)
    assert costs(box, {"a": lambda x, y: rise.attribute(x, y), "b": rise})["b"] == (0, 0)


def test_a_student_counts():
    model = network().eval()
    box = BlackBox(lambda x: model(x), output="logits")
    student = DistilledLayerSumGradCAM(box, network(seed=4))
    assert costs(box, {"student": student}, target=1) == {"student": (3, 3)}


def test_making_a_method_is_timed_apart():
    found = quietly(
        network(), images(), ["random", "distilled_layer_sum"], ["deletion"], data=images(40)
    )
    made = found.cost("distilled_layer_sum")
    assert made.making_seconds > found.cost("random").making_seconds
    assert made.images == 3 and made.forward == 3 and made.seconds > 0


def test_hooks_count_the_outermost_module_and_are_gone_after_an_exception():
    inner = nn.Linear(2, 2)
    model = nn.Sequential(inner, nn.ReLU(), inner)
    before = State(model)
    with passes_counted([model, inner, model]) as passes:
        model(torch.zeros(4, 2))
        inner(torch.zeros(3, 2))
        with pytest.raises(RuntimeError):
            model(torch.zeros(4, 3))
        given = torch.zeros(5, 2, requires_grad=True)
        model(given).sum().backward(inputs=[given])
    assert (passes.forward, passes.backward) == (12, 5)
    assert State(model).differences(before) == []
    model(torch.zeros(1, 2))
    assert passes.forward == 12
