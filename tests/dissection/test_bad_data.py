"""Data that cannot be used, networks that misbehave, and what is left untouched either way."""

import math
import re
import warnings

import pytest
import torch
from naive_dissection import ListedConcepts, random_concepts
from networks import FunctionalInPlace, Raises, RunsTwice, SideBranch, State, Tokens, TwoConvs
from planted_units import assert_same_result
from torch import nn
from torch.testing import assert_close

from captum_blackbox import NetworkDissection
from captum_blackbox.concepts import Annotation
from captum_blackbox.errors import DataError, ExplanationWarning, InputError, LayerError

QUIET = {"show_progress": False, "batch_size": 3}


class Bad(ListedConcepts):
    """Seven images, some of which are replaced by something else, or raise."""

    def __init__(self, images=None, annotations=None, dtype=torch.float32):
        made = random_concepts()
        pictures = torch.stack([made.image(number) for number in range(7)]).to(dtype)
        each = [made.annotations(number) for number in range(7)]
        super().__init__(pictures, each, made.labels, made.categories)
        self.bad_images, self.bad_annotations = images or {}, annotations or {}

    def image(self, index):
        return answer(self.bad_images, index, super().image(index))

    def annotations(self, index):
        return answer(self.bad_annotations, index, super().annotations(index))


def answer(bad, index, good):
    if isinstance(bad.get(index), Exception):
        raise bad[index]
    return bad.get(index, good)


def network(dtype=torch.float32):
    torch.manual_seed(3)
    layers = nn.Conv2d(3, 5, 3, 2, 1), nn.ReLU(), nn.Conv2d(5, 4, 1)
    return nn.Sequential(*layers).to(dtype)


def dissect(concepts, layer="2", model=None, on_error="raise", num_workers=0, **settings):
    settings = {"quantile": 0.1, "upsample": "resize", **settings}
    dissection = NetworkDissection(model or network(), layer, **settings)
    return dissection.dissect(concepts, on_error=on_error, num_workers=num_workers, **QUIET)


def whole_message(text):
    return f"^{re.escape(text)}$"


PIXELS = torch.ones(1, 6, 5, dtype=torch.int32)
CUT = DataError("'4.jpg' is cut off")
BROKEN = {
    "image raises": ({"images": {4: CUT}}, "'4.jpg' is cut off"),
    "masks raise": ({"annotations": {4: CUT}}, "'4.jpg' is cut off"),
    "image of another size": (
        {"images": {4: torch.rand(3, 12, 11)}},
        "image 4 has shape (3, 12, 11), expected (3, 12, 10)",
    ),
    "grey image": (
        {"images": {4: torch.rand(1, 12, 10)}},
        "image 4 has shape (1, 12, 10), expected (3, 12, 10)",
    ),
    "masks of another size": (
        {"annotations": {4: {"part": Annotation(PIXELS[:, :5])}}},
        "image 4, 'part': the masks have shape (1, 5, 5), expected (K, *(6, 5))",
    ),
    "one mask without layers": (
        {"annotations": {4: {"part": Annotation(PIXELS[0])}}},
        "image 4, 'part': the masks have shape (6, 5), expected (K, *(6, 5))",
    ),
    "label outside the table": (
        {"annotations": {4: {"part": Annotation(PIXELS * 8)}}},
        "image 4, 'part': label 8 is not in the table of 7 labels (1 ... 7, 0 for none)",
    ),
    "label below 0": (
        {"annotations": {4: {"part": Annotation(-PIXELS)}}},
        "image 4, 'part': label -1 is not in the table of 7 labels (1 ... 7, 0 for none)",
    ),
    "whole label outside": (
        {"annotations": {4: {"scene": Annotation(PIXELS[:0], (5, 9))}}},
        "image 4, 'scene': label 9 is not in the table of 7 labels (1 ... 7, 0 for none)",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_named(case):
    bad, message = BROKEN[case]
    with pytest.raises(DataError, match=whole_message(message)):
        dissect(Bad(**bad))


def test_what_is_broken_is_named_as_shortly_by_other_processes():
    with pytest.raises(DataError, match=whole_message("'4.jpg' is cut off")):
        dissect(Bad(images={4: CUT}), num_workers=1)


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_can_be_left_out_with_a_warning(case):
    bad, message = BROKEN[case]
    with pytest.warns(ExplanationWarning, match=whole_message(f"left out: {message}")) as seen:
        result = dissect(Bad(**bad), on_error="skip")
    assert len(seen) == 1
    assert result.skipped == (f"image 4: {message}",)
    is_image = "images" in bad
    assert result.settings["images"] == (6 if is_image else 7)
    # As if the image were not there, or showed nothing.
    other = Bad() if is_image else Bad(annotations={4: {}})
    if is_image:
        rest = [0, 1, 2, 3, 5, 6]
        other._images = other._images[rest]
        other._annotations = [other._annotations[number] for number in rest]
    expected = dissect(other)
    for name in ("truth", "activation", "intersection"):
        assert torch.equal(getattr(result, name), getattr(expected, name)), name
    # Batches are others, and a convolution rounds by them.
    assert_close(result.thresholds, expected.thresholds)
    assert_close(result.top_activations, expected.top_activations)
    named = expected.top_images + (expected.top_images > 3) if is_image else expected.top_images
    assert torch.equal(result.top_images, named)


def test_the_first_images_may_be_broken():
    cut = {number: DataError(f"'{number}.jpg' is cut off") for number in range(4)}
    with pytest.warns(ExplanationWarning):
        result = dissect(Bad(images=cut), on_error="skip")
    assert result.settings["images"] == 3
    assert sorted(result.top_images[0].tolist()) == [4, 5, 6]


def test_no_image_at_all_is_refused():
    cut = dict.fromkeys(range(7), CUT)
    with pytest.raises(InputError, match=whole_message("none of the 7 images can be read")):
        dissect(Bad(images=cut), on_error="skip")


def test_masks_that_are_all_broken_leave_thresholds_and_no_match():
    cut = dict.fromkeys(range(7), CUT)
    with pytest.warns(ExplanationWarning):
        result = dissect(Bad(annotations=cut), on_error="skip")
    assert len(result.skipped) == 7
    assert torch.equal(result.thresholds, dissect(Bad()).thresholds)
    assert not result.iou.any() and not result.truth.any()


def test_an_error_of_another_kind_is_never_skipped():
    with pytest.raises(ZeroDivisionError):
        dissect(Bad(images={4: ZeroDivisionError()}), on_error="skip")


def test_an_image_that_breaks_between_the_passes_shifts_no_other():
    class Breaks(Bad):
        reads = 0

        def image(self, index):
            if index == 1:
                self.reads += 1
                if self.reads == 2:
                    raise DataError("'1.jpg' is gone")
            return super().image(index)

    with pytest.raises(DataError, match="'1.jpg' is gone"):
        dissect(Breaks(), on_error="skip")


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_activations_that_are_not_finite_name_layer_and_unit(wrong):
    model = network()
    model[2].bias.data[3] = wrong
    message = (
        "layer '2': unit 3 has values that are not finite (1 of 4 units have); look for NaN in "
        "the images and the weights"
    )
    with pytest.raises(InputError, match=whole_message(message)):
        dissect(Bad(), model=model)
    with pytest.raises(InputError, match="^layer '2': unit 3 has a value that is NaN or infinite"):
        dissect(Bad(), model=model, threshold_method="sketch")


def test_an_image_with_nan_is_no_broken_file():
    image = torch.rand(3, 12, 10)
    image[0, 3, 3] = math.nan
    with pytest.raises(InputError, match="^layer '2': unit 0 has values that are not finite"):
        dissect(Bad(images={4: image}), on_error="skip")


def test_there_is_no_such_layer():
    message = "Sequential has no layer '7'; the nearest names are '0', '1', '2'"
    with pytest.raises(LayerError, match=whole_message(message)):
        NetworkDissection(network(), "7")


def refused(model, layer, message, **settings):
    before = State(model)
    with pytest.raises(LayerError, match=message):
        dissect(Bad(), layer=layer, model=model, **settings)
    assert not before.differences(State(model))


def test_a_layer_without_maps_is_refused():
    refused(
        TwoConvs(),
        "linear",
        whole_message(
            "layer 'linear' gives (1, 4), expected maps (N, units, h, w); choose a layer before "
            "the pooling, or pass reshape_transform for tokens"
        ),
    )


def test_a_layer_that_runs_twice_is_refused():
    refused(RunsTwice(), "shared", "^layer 'shared' .*runs more than once")


def test_a_layer_that_does_not_run_is_refused():
    message = whole_message("layer 'never' did not run in the model's forward pass")
    refused(SideBranch(), "never", message)


def test_a_layer_that_puts_out_no_tensor_is_refused():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    model = nn.Sequential(nn.Conv2d(3, 3, 1), Pair())
    refused(model, "1", r"^layer '1' \(Pair\) puts out a tuple, not a tensor")


def test_a_side_branch_can_be_dissected():
    result = dissect(Bad(), layer="side", model=SideBranch())
    assert len(result.thresholds) == 4


def test_tokens_are_maps_after_a_reshape():
    made = random_concepts(count=4, size=(16, 16))
    model = Tokens().double()

    def as_maps(tokens):
        return tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))

    options = {"layer": "block1", "model": model}
    result = dissect(made, reshape_transform=as_maps, **options)
    assert result.settings["map_size"] == [4, 4]
    assert len(result.thresholds) == 8
    with pytest.raises(LayerError, match="use upsample='resize'$"):
        dissect(made, reshape_transform=as_maps, upsample="receptive_field", **options)
    with pytest.raises(LayerError, match="pass reshape_transform for tokens"):
        dissect(made, **options)


def test_a_network_without_parameters_is_a_network():
    result = dissect(Bad(dtype=torch.float64), "0", nn.Sequential(nn.AvgPool2d(2)))
    assert result.thresholds.shape == (3,)
    assert result.top_activations.dtype == torch.float64


def test_a_network_that_raises_is_left_as_it_was():
    model = Raises().train()
    before = State(model)
    with pytest.raises(RuntimeError, match="a layer broke"):
        dissect(Bad(), "conv1", model)
    assert not before.differences(State(model))


def test_a_network_that_raises_later_is_left_as_it_was():
    class Later(TwoConvs):
        runs = 0

        def forward(self, x):
            output = super().forward(x)
            self.runs += 1
            if self.runs == 3:
                raise RuntimeError("later")
            return output

    model = Later().train()
    before = State(model)
    with pytest.raises(RuntimeError, match="later"):
        dissect(Bad(), "conv2", model)
    assert not before.differences(State(model))


@pytest.mark.parametrize("make", [TwoConvs, FunctionalInPlace, lambda: TwoConvs(inplace=True)])
def test_the_network_is_left_as_it_was(make):
    """Training flags, hooks, in-place flags, gradients, weights and BatchNorm statistics."""
    model = make().train()
    model.norm.eval()
    model.conv1.weight.requires_grad_(False)
    model(torch.rand(2, 3, 12, 10)).sum().backward()
    before = State(model)
    random, is_grad = torch.get_rng_state(), torch.is_grad_enabled()
    result = dissect(Bad(), ["conv1", "conv2"], model)
    assert not before.differences(State(model))
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.is_grad_enabled() == is_grad
    with torch.no_grad():
        fresh = TwoConvs()
        fresh.load_state_dict(model.state_dict())
        for layer in ("conv1", "conv2"):  # what is in place later changes nothing
            assert_close(result[layer].iou, dissect(Bad(), layer, fresh).iou)


def test_dropout_and_batch_norm_are_those_of_evaluation():
    model = TwoConvs()
    model.norm.running_mean.normal_()
    expected = dissect(Bad(), "relu1", model.eval())
    assert_same_result(dissect(Bad(), "relu1", model.train()), expected)
    images = torch.stack([Bad().image(number) for number in range(7)])
    with torch.no_grad():
        maps = model.eval().relu1(model.norm(model.conv1(images)))
    assert_close(expected.top_activations[:, 0], maps.amax((0, 2, 3)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_networks_are_dissected_in_float32(dtype):
    result = dissect(Bad(), model=network(dtype))
    assert result.top_activations.dtype == torch.float32
    assert result.thresholds.dtype == torch.float64
    expected = dissect(Bad(), model=network())
    assert_close(result.thresholds, expected.thresholds, rtol=0.05, atol=0.05)


def test_the_inputs_have_the_dtype_of_the_network():
    seen = []
    model = network(torch.float64)
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    dissect(Bad(dtype=torch.float32), model=model)
    assert set(seen) == {torch.float64}


def test_preparation_comes_before_the_network():
    concepts = Bad()
    halves = dissect(concepts, model=network(), preprocess=lambda images: images / 2 + 1)
    concepts._images = concepts._images / 2 + 1
    expected = dissect(concepts, model=network())
    for name in ("thresholds", "intersection", "top_activations"):
        assert torch.equal(getattr(halves, name), getattr(expected, name))


def test_no_graph_is_kept():
    seen = []
    model = network()
    model[2].register_forward_hook(lambda _, __, output: seen.append(output.requires_grad))
    dissect(Bad(), model=model)
    NetworkDissection(model, "1").use(dissect(Bad(), "1", model)).masks(
        torch.rand(2, 3, 12, 10), [1], (5, 5)
    )
    assert set(seen) == {False}


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_it_can_be_called_in_any_mode(mode):
    expected = dissect(Bad())
    with mode():
        found = dissect(Bad())
    assert_same_result(found, expected)


def test_images_made_in_inference_mode_can_be_used_outside():
    with torch.inference_mode():
        concepts = Bad()
    assert_same_result(dissect(concepts), dissect(Bad()))


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_wrappers_change_nothing(wrap):
    expected = dissect(Bad(), model=network())
    assert_same_result(dissect(Bad(), model=wrap(network())), expected)


def test_layers_may_be_modules_and_lists_give_dicts():
    model = network()
    expected = dissect(Bad(), "1", model)
    assert_same_result(dissect(Bad(), model[1], model), expected)
    several = dissect(Bad(), [model[1], "2"], model)
    assert list(several) == ["1", "2"]
    for name in ("thresholds", "intersection", "top_images"):
        assert torch.equal(getattr(several["1"], name), getattr(expected, name))


def test_what_is_no_collection_of_concepts_is_refused(as_users_call):
    message = "expected Concepts, such as MaskConcepts(images, masks, names), got a list"
    with pytest.raises(InputError, match=whole_message(message)):
        NetworkDissection(network(), "2").dissect([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is at least 1, got 0"),
        ({"checkpoint_every": 0}, "checkpoint_every is at least 1, got 0"),
        ({"num_workers": -1}, "workers is at least 0, got -1"),
        ({"on_error": "ignore"}, "on_error is one of 'raise', 'skip', got 'ignore'"),
    ],
)
def test_what_is_out_of_range_is_refused(as_users_call, options, message):
    with pytest.raises(InputError, match=whole_message(message)):
        NetworkDissection(network(), "2").dissect(Bad(), **options)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quantile": 0.0}, "quantile is a share between 0 and 1, got 0.0"),
        ({"quantile": 1.0}, "quantile is a share between 0 and 1, got 1.0"),
        ({"level": 1.5}, "level is a share between 0 and 1, got 1.5"),
        ({"iou_threshold": 1.0}, "iou_threshold is in [0, 1), got 1.0"),
        ({"top_images": 0}, "top_images is a number of images, got 0"),
        (
            {"upsample": "nearest"},
            "upsample is one of 'receptive_field', 'resize', 'grid_zeros', got 'nearest'",
        ),
        ({"presence": "any"}, "presence is one of 'image', 'mask', got 'any'"),
        ({"threshold_method": "p2"}, "threshold_method is one of 'exact', 'sketch', got 'p2'"),
    ],
)
def test_settings_out_of_range_are_refused(as_users_call, settings, message):
    with pytest.raises(InputError, match=whole_message(message)):
        NetworkDissection(network(), "2", **settings)


def test_fading_maps_need_thresholds_that_are_not_negative():
    model = network()
    model[2].bias.data[:] = torch.tensor([9.0, 9.0, -100.0, 9.0])
    with pytest.raises(InputError, match="^layer '2': unit 2 has a threshold below 0"):
        dissect(Bad(), model=model, upsample="grid_zeros")


# Memory.


def test_a_sketch_takes_the_place_of_what_does_not_fit():
    concepts, model = random_concepts(count=20), network(torch.float64)
    settings = {"quantile": 0.05, "upsample": "resize"}
    exact = NetworkDissection(model, "2", **settings)
    expected = exact.dissect(concepts, **QUIET)
    message = "^the exact thresholds of layer '2' need 0.0 GiB; a sketch takes their place"
    with pytest.warns(ExplanationWarning, match=message):
        result = exact.dissect(concepts, memory_limit=100, **QUIET)
    assert result.settings["threshold_method"] == "sketch"
    assert expected.settings["threshold_method"] == "exact"
    # So few values are all kept.
    assert_close(result.thresholds, expected.thresholds, rtol=1e-9, atol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # asked for, it is no reason to warn
        asked = NetworkDissection(model, "2", threshold_method="sketch", **settings)
        sketched = asked.dissect(concepts, **QUIET)
    assert torch.equal(sketched.thresholds, result.thresholds)
    assert_close(sketched.iou, expected.iou, rtol=0, atol=1e-6)


def test_memory_decides_how_often_images_are_read_and_nothing_else():
    """3000 bytes are a bit more than what the top values of layer '2' need; cells get as much."""
    reads = []

    class Counts(ListedConcepts):
        def image(self, index):
            reads.append(index)
            return super().image(index)

    made = random_concepts(count=40)
    concepts = Counts(made._images, made._annotations, made.labels, made.categories)
    results = {}
    for memory in (3000, 2 << 30):
        reads.clear()
        dissection = NetworkDissection(network(torch.float64), "2", quantile=0.03)
        result = dissection.dissect(concepts, memory_limit=memory, **QUIET)
        results[len(reads)] = result
    little, much = results
    assert 41 < much < little <= 81  # one of the sizes, all once, and some again
    assert_same_result(results[little], results[much])
