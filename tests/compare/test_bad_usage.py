"""What a user can get wrong is refused before anything is asked, with words that help."""

import pytest
import torch
from captum.attr import LayerGradCam
from compared import images, network, quietly
from counted import Recorder

from captum_blackbox.compare import FunctionMetric, compare
from captum_blackbox.errors import InputError, ShapeError, TargetError

pytestmark = pytest.mark.usefixtures("as_users_call")


def refused(error, methods=("random",), metrics=("deletion",), inputs=None, **kwargs):
    model = Recorder()
    with pytest.raises(error) as caught:
        quietly(model, images() if inputs is None else inputs, methods, metrics, **kwargs)
    assert model.asked == 0
    return str(caught.value)


def test_unknown_names_get_the_nearest():
    assert refused(InputError, ["salency", "random"]).startswith(
        "there is no method 'salency'; the nearest names are 'saliency', and all are 'deconvnet', "
    )
    assert refused(InputError, metrics=["Deletion"]).startswith(
        "there is no metric 'Deletion'; the nearest names are 'deletion', 'degradation', 'ins"
    )
    assert refused(InputError, {"mine": "xyz"}).startswith("there is no method 'xyz'; they are ")


def test_images():
    assert "expected at least one image" in refused(ShapeError, inputs=torch.zeros(0, 2, 8, 8))
    assert "expected images (N, C, H, W)" in refused(ShapeError, inputs=torch.zeros(8, 8))
    assert "got list" in refused(ShapeError, inputs=[images()])


def test_masks():
    assert refused(InputError, metrics=["deletion", "pointing_game", "relevance_mass"]).startswith(
        "pointing_game, relevance_mass need to know where the truth lies; give masks=…"
    )
    assert refused(ShapeError, masks=torch.ones(3, 4, 4)) == (
        "expected masks (3, 8, 8) or (3, 1, 8, 8), one at the size of each image, got shape "
        "(3, 4, 4)"
    )
    assert refused(InputError, masks=torch.zeros(3, 8, 8)) == (
        "every mask is empty, so no map can point at anything; give masks that are not 0 where the "
        "truth lies, or leave out masks and the metrics that need them"
    )


def raising(context, method, maps):
    if not context.masks.flatten(1).any(1).all():
        raise ZeroDivisionError
    return maps.mean((1, 2, 3))


@pytest.mark.parametrize(
    "metric",
    [
        "pointing_game",
        "relevance_mass",
        "relevance_rank",
        FunctionMetric("mine", raising, higher_is_better=True, needs_masks=True),
    ],
)
def test_an_empty_mask_leaves_one_number_out_and_says_of_which_image(metric):
    masks = torch.ones(3, 8, 8)
    masks[1, 2:5] = 0
    masks[2] = 0
    found = quietly(
        network(), images(), ["random"], [metric, "deletion"], masks=masks, batch_size=1,
        names=["cat.png", "dog.png", "emu.png"],
    )  # fmt: skip
    assert found.values[0, 0].isfinite().tolist() == [True, True, False]
    assert bool(found.values[0, 1].isfinite().all())
    (failure,) = found.failures
    assert failure.image == 2 and not failure.is_applicable
    assert failure.reason.startswith("its mask is empty, so that nothing says where a map should ")
    assert "| emu.png | not applicable: its mask is empty, so that" in found.to_markdown()
    assert found.notes == ()  # of which the number of an image would be that in its batch


def test_names():
    assert refused(InputError, names=["a", "b"]) == (
        "names is a list of 3 texts, one for each image, got '2 of str'"
    )
    assert refused(InputError, names="abc").endswith("got 'abc'")
    assert refused(InputError, names=["a", 1, "b"]).endswith("got '3 of int'")


def test_methods():
    cases = {
        "there is no method; the ready ones are random, ": [],
        "methods is a list or a mapping, got 'random'": "random",
        "method 'random' stands twice": ["random", "random"],
        "a method that is no name needs one": [LayerGradCam],
        "method 'it' is a int; give a name, an attribution": {"it": 3},
        "method 'it' wants ['forward_func', 'layer']; give a function of the model": {
            "it": LayerGradCam
        },
        "method 'it' wants no arguments": {"it": lambda: 3},
        "'pattern_attribution' is fitted to images": ["pattern_attribution"],
        "the name of a method is a text, got 1; write '1'": {1: "random"},
    }
    for message, methods in cases.items():
        assert refused(InputError, methods).startswith(message)


def test_metrics():
    mine = FunctionMetric("deletion", len, higher_is_better=True)
    cases = {
        "there is no metric; the known ones are deletion, ": [],
        "metrics is a list, got 'deletion'": "deletion",
        "two metrics are called 'deletion'": ["deletion", mine],
    }
    for message, metrics in cases.items():
        assert refused(InputError, metrics=metrics).startswith(message)
    assert refused(InputError, metrics=[len]).startswith("len is no metric: it has no name, no dir")
    assert refused(InputError, metrics=[FunctionMetric]).startswith("FunctionMetric is no metric")


def test_settings():
    assert refused(InputError, batch_size=0) == "batch_size must be at least 1, got 0"
    assert "output is one of" in refused(InputError, output="numbers")


def test_one_class():
    for target in (None, 0):
        with pytest.raises(InputError) as caught:
            quietly(network(classes=1), images(), ["random"], ["deletion"], target=target)
        assert str(caught.value).startswith("the model tells one class only")


def test_targets():
    with pytest.raises(TargetError, match="target 3 is out of range for 3 classes"):
        quietly(network(), images(), ["random"], ["deletion"], target=3)
    with pytest.raises(TargetError, match="expected one target or 3 of them"):
        quietly(network(), images(), ["random"], ["deletion"], target=[0, 1])


def test_what_is_not_in_a_comparison():
    found = quietly(network(), images(), ["random"], ["deletion"])
    for ask in (
        lambda: found.scores("rise", "deletion"),
        lambda: found.ranks("insertion"),
        lambda: found.to_markdown("rise"),
    ):
        with pytest.raises(InputError, match="in this comparison"):
            ask()


def test_the_package_can_be_called_as_the_function():
    import sys

    package = sys.modules["captum_blackbox.compare"]
    found = package(network(), images(), ["random"], ["deletion"], show_progress=False)
    assert found.methods == ("random",)
    assert callable(compare)
