"""The deletion and the insertion game."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d
from torch import nn

from captum_blackbox.black_box import BlackBox, TopK
from captum_blackbox.errors import InputError, ShapeError, TargetError
from captum_blackbox.metrics import deletion, insertion
from captum_blackbox.metrics.class_scores import ClassScores
from captum_blackbox.metrics.substrates import blurred, substrate_images

GAMES = pytest.mark.parametrize("game", [deletion, insertion])


def linear(channels, height, width, classes=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, classes))


def two_classes(score):
    """A box of probabilities whose class 0 has the given score."""
    return BlackBox(lambda x: torch.stack([score(x), 1 - score(x)], dim=1), output="probs")


def constant_box(probability):
    return two_classes(lambda x: torch.full((len(x),), probability))


class Recorder:
    """A box that keeps what it was asked."""

    def __init__(self, answer):
        self.asked = []
        self.answer = answer

    def __call__(self, images):
        self.asked.append(images.clone())
        return self.answer(images)

    @property
    def images(self):
        return torch.cat(self.asked)


def naive_game(model, image, saliency, target, step, substrate, mode, ties):
    """The loop of the published code, for one image, with any number of pixels and channels."""
    pixels = saliency.size
    if ties == "reference":
        order = np.flip(np.argsort(saliency.reshape(-1), kind="stable"))
    else:
        order = np.array(sorted(range(pixels), key=lambda i: (-saliency.reshape(-1)[i], i)))
    steps = (pixels + step - 1) // step
    start, finish = (image, substrate) if mode == "deletion" else (substrate, image)
    start = start.copy()
    scores = []
    for number in range(steps + 1):
        with torch.no_grad():
            answer = model(torch.from_numpy(start)[None]).softmax(1)
        scores.append(float(answer[0, target]))
        for pixel in order[number * step : (number + 1) * step]:
            row, column = divmod(pixel, saliency.shape[1])
            start[:, row, column] = finish[:, row, column]
    area = (sum(scores) - scores[0] / 2 - scores[-1] / 2) / steps
    return scores, area


@pytest.mark.parametrize("mode", ["deletion", "insertion"])
@pytest.mark.parametrize("ties", ["index", "reference"])
@pytest.mark.parametrize(
    ("channels", "height", "width", "step"), [(1, 5, 7, 3), (3, 6, 4, 5), (4, 3, 3, 2**40)]
)
def test_both_games_follow_the_published_loop(mode, ties, channels, height, width, step):
    model = linear(channels, height, width)
    images = torch.randn(3, channels, height, width)
    substrate = torch.randn(3, channels, height, width)
    saliency = torch.randint(0, 4, (3, height, width)).float()  # many ties
    targets = [2, 0, 3]
    game = {"deletion": deletion, "insertion": insertion}[mode]
    curve, auc = game(
        model, images, saliency, targets, step=step, substrate=substrate, ties=ties, batch_size=4
    )
    for i in range(3):
        scores, area = naive_game(
            model,
            images[i].numpy(),
            saliency[i].numpy(),
            targets[i],
            step,
            substrate[i].numpy(),
            mode,
            ties,
        )
        torch.testing.assert_close(curve[i], torch.tensor(scores))
        torch.testing.assert_close(auc[i], torch.tensor(area))


def test_a_game_by_hand():
    # Four pixels of brightness 0.1, 0.2, 0.3, 0.4; the score is their sum.
    image = torch.tensor([[[[0.1, 0.2], [0.3, 0.4]]]])
    box = two_classes(lambda x: x.sum((1, 2, 3)))
    saliency = torch.tensor([[[2.0, 4.0], [1.0, 3.0]]])  # 0.2, 0.4, 0.1, 0.3
    curve, auc = deletion(box, image, saliency, 0, step=1)
    torch.testing.assert_close(curve, torch.tensor([[1.0, 0.8, 0.4, 0.3, 0.0]]))
    torch.testing.assert_close(auc, torch.tensor([(0.5 + 0.8 + 0.4 + 0.3 + 0.0) / 4]))
    curve, auc = insertion(box, image, saliency, 0, step=3, substrate="zeros")
    torch.testing.assert_close(curve, torch.tensor([[0.0, 0.7, 1.0]]))
    torch.testing.assert_close(auc, torch.tensor([(0.0 + 0.7 + 0.5) / 2]))


@GAMES
@given(
    probability=st.floats(0, 1),
    size=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    step=st.none() | st.integers(1, 100),
)
@settings(max_examples=30)
def test_a_constant_score_has_its_value_as_area(game, probability, size, step):
    images = torch.ones(2, *size)
    curve, auc = game(
        constant_box(probability), images, torch.zeros(2, *size[1:]), target=0, step=step
    )
    pixels = size[1] * size[2]
    steps = -(-pixels // (step or -(-pixels // 28)))
    assert curve.shape == (2, steps + 1)
    torch.testing.assert_close(auc, torch.full((2,), probability), rtol=1e-5, atol=1e-6)


@GAMES
@given(low=st.floats(0, 0.5), high=st.floats(0.5, 1), seed=st.integers(0, 99))
@settings(max_examples=20)
def test_a_linear_ramp_has_the_mean_of_its_ends_as_area(game, low, high, seed):
    images = torch.ones(1, 1, 4, 6)
    box = two_classes(lambda x: low + (high - low) * x.mean((1, 2, 3)))
    saliency = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(seed))
    _, auc = game(box, images, saliency, target=0, step=3, substrate="zeros")
    torch.testing.assert_close(auc, torch.tensor([(low + high) / 2]), rtol=1e-5, atol=1e-6)


def test_no_order_beats_the_order_of_contributions_in_an_additive_model():
    image = torch.tensor([0.7, 0.2, 0.9, 0.4, 0.6, 0.32]).view(1, 1, 2, 3)
    weights = torch.tensor([0.2, 0.5, 0.1, 0.3, 0.05, 0.4]).view(1, 1, 2, 3)
    box = two_classes(lambda x: (x * weights).sum((1, 2, 3)))
    every_order = torch.tensor(list(itertools.permutations(range(6)))).float().view(-1, 2, 3)
    images = image.expand(len(every_order), -1, -1, -1)
    falls = deletion(box, images, every_order, 0, step=1)
    rises = insertion(box, images, every_order, 0, step=1, substrate="zeros")

    best = (weights * image)[:, 0]
    best_fall = deletion(box, image, best, 0, step=1).auc
    best_rise = insertion(box, image, best, 0, step=1, substrate="zeros").auc
    assert len(every_order) == 720
    torch.testing.assert_close(falls.auc.min(), best_fall[0])
    torch.testing.assert_close(rises.auc.max(), best_rise[0])
    assert int((falls.auc < best_fall + 1e-6).sum()) == 1  # and no other order is as good
    # f(x) + f(0), whatever the order.
    sums = torch.full_like(falls.auc, float((weights * image).sum()))
    torch.testing.assert_close(falls.auc + rises.auc, sums)


@pytest.mark.parametrize("substrate", ["zeros", "blur", torch.tensor([0.1, -2.0, 7.0])])
def test_the_games_run_between_the_image_and_the_substrate(substrate):
    images, saliency = torch.randn(2, 3, 5, 9), torch.randn(2, 5, 9)
    if isinstance(substrate, torch.Tensor):
        substrate = substrate.view(3, 1, 1)
    gone = substrate_images(images, substrate)
    for game, first, last in ((deletion, images, gone), (insertion, gone, images)):
        recorder = Recorder(linear(3, 5, 9))
        game(recorder, images, saliency, 0, step=4, substrate=substrate, batch_size=7)
        asked = recorder.images.view(2, 13, 3, 5, 9)  # ceil(45 / 4) + 1
        assert torch.equal(asked[:, 0], first)
        assert torch.equal(asked[:, -1], last)
        changed = (asked[:, 1:] != asked[:, :-1]).any(2).flatten(2).sum(2)
        assert changed.tolist() == [[4] * 11 + [1]] * 2


@GAMES
@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_neither_chunks_nor_neighbours_change_the_result(game, batch_size):
    model, images, saliency = linear(2, 6, 5), torch.randn(5, 2, 6, 5), torch.zeros(5, 6, 5)
    whole = game(model, images, saliency, ties="random", seed=3)
    chunked = game(model, images, saliency, ties="random", seed=3, batch_size=batch_size)
    torch.testing.assert_close(chunked.curve, whole.curve)
    for i in range(5):
        alone = game(model, images[i : i + 1], saliency[i : i + 1], ties="random", seed=3)
        torch.testing.assert_close(alone.curve, whole.curve[i : i + 1])
        torch.testing.assert_close(alone.auc, whole.auc[i : i + 1])


def test_at_most_batch_size_images_are_built_at_a_time():
    recorder = Recorder(linear(1, 4, 4))
    deletion(recorder, torch.randn(3, 1, 4, 4), torch.randn(3, 4, 4), 0, step=4, batch_size=7)
    assert [len(each) for each in recorder.asked] == [7, 7, 1]
    recorder = Recorder(linear(1, 4, 4))
    box = BlackBox(recorder, output="logits", batch_size=4)
    deletion(box, torch.randn(1, 1, 4, 4), torch.randn(1, 4, 4), 0, step=4)
    assert [len(each) for each in recorder.asked] == [4, 1]


def test_as_many_images_as_the_box_takes_are_built_by_default(monkeypatch):
    built = []
    box = BlackBox(linear(1, 4, 4), output="logits", batch_size=4)
    answers = box.answers
    monkeypatch.setattr(box, "answers", lambda x: (built.append(len(x)), answers(x))[1])
    insertion(box, torch.randn(1, 1, 4, 4), torch.randn(1, 4, 4), 0, step=3)
    assert built == [4, 3]


def test_by_default_there_are_at_most_28_steps():
    for height, width, steps in ((3, 3, 9), (8, 7, 28), (3, 19, 19), (1, 1, 1)):
        images = torch.randn(1, 1, height, width)
        curve, _ = deletion(linear(1, height, width), images, torch.zeros(1, height, width), 0)
        assert curve.shape == (1, steps + 1)


def test_by_default_deletion_leaves_zeros_and_insertion_starts_from_a_blur():
    model, images, saliency = linear(2, 4, 4), torch.randn(1, 2, 4, 4), torch.randn(1, 4, 4)
    for game, substrate in ((deletion, "zeros"), (insertion, "blur")):
        explicit = game(model, images, saliency, 0, substrate=substrate)
        torch.testing.assert_close(game(model, images, saliency, 0), explicit)


@GAMES
def test_the_seed_breaks_ties(game):
    model, images, constant = linear(1, 5, 5), torch.randn(1, 1, 5, 5), torch.zeros(1, 5, 5)
    one, two, again = (
        game(model, images, constant, 0, ties="random", seed=seed).curve for seed in (1, 2, 1)
    )
    torch.testing.assert_close(again, one)
    assert not torch.equal(one, two)


def test_without_a_target_the_prediction_is_watched_for_one_more_query_an_image():
    images, saliency = torch.randn(6, 2, 4, 4), torch.randn(6, 4, 4)
    box = BlackBox(linear(2, 4, 4), output="logits")
    named = deletion(box, images, saliency, box(images).argmax(1), step=4)
    assert box.queries == 6 + 6 * 5
    torch.testing.assert_close(deletion(box, images, saliency, step=4), named)
    assert box.queries == 2 * (6 + 6 * 5)
    assert len(set(box(images).argmax(1).tolist())) > 1


@pytest.mark.parametrize(
    "target", [1, torch.tensor(1), [1, 1], (1,), [(1,), (1,)], torch.tensor([1, 1])]
)
def test_every_form_of_target_names_the_class(target):
    model, images, saliency = linear(1, 3, 3), torch.randn(2, 1, 3, 3), torch.randn(2, 3, 3)
    torch.testing.assert_close(
        deletion(model, images, saliency, target), deletion(model, images, saliency, [1, 1])
    )


def test_maps_of_every_form_and_tuples_are_accepted():
    model, images, saliency = linear(2, 3, 3), torch.randn(2, 2, 3, 3), torch.randn(2, 3, 3)
    expected = deletion(model, images, saliency, 1)
    by_channel = torch.stack([saliency - 1, torch.ones(2, 3, 3)], dim=1)
    for maps in (saliency[:, None], (saliency,), by_channel):
        torch.testing.assert_close(deletion(model, images, maps, 1), expected)
    torch.testing.assert_close(deletion(model, (images,), (saliency,), 1), expected)
    largest = deletion(model, images, saliency, 1, channels="max_abs")
    torch.testing.assert_close(largest, deletion(model, images, saliency.abs(), 1))


def test_logits_are_watched_on_request():
    model, images = linear(1, 2, 2), torch.randn(1, 1, 2, 2)
    curve, _ = deletion(model, images, torch.zeros(1, 2, 2), 3, score="logit", step=4)
    expected = torch.stack([model(images)[0, 3], model(torch.zeros_like(images))[0, 3]])
    torch.testing.assert_close(curve[0], expected.detach())


def test_half_precision_logits_are_scored_in_float32():
    images = torch.randn(1, 1, 2, 2, dtype=torch.bfloat16)
    model = linear(1, 2, 2).bfloat16()
    for score in ("probability", "logit"):
        curve, auc = insertion(model, images, torch.zeros(1, 2, 2), 0, score=score)
        assert curve.dtype == auc.dtype == torch.float32


def bright_label(images):
    return (images.sum((1, 2, 3)) > 1.5).long()


def test_a_box_of_labels_scores_0_or_1():
    box = BlackBox(bright_label, output="labels", num_classes=2)
    curve, auc = deletion(box, torch.ones(1, 1, 2, 2), torch.zeros(1, 2, 2), step=1)
    assert curve.tolist() == [[1.0, 1.0, 1.0, 0.0, 0.0]]
    assert auc.tolist() == [2.5 / 4]


def test_a_class_that_a_top_k_answer_does_not_list_scores_0():
    def top_1(images):
        labels = bright_label(images)[:, None]
        return TopK(torch.full(labels.shape, 0.7), labels)

    box = BlackBox(top_1, output="topk", num_classes=5)
    curve, _ = deletion(box, torch.ones(1, 1, 2, 2), torch.zeros(1, 2, 2), step=1)
    torch.testing.assert_close(curve, torch.tensor([[0.7, 0.7, 0.7, 0.0, 0.0]]))


def test_the_caller_keeps_its_tensors_and_random_numbers():
    model, images, saliency = linear(1, 4, 4), torch.randn(2, 1, 4, 4), torch.randn(2, 4, 4)
    images.requires_grad_()
    kept = [each.detach().clone() for each in (images, saliency)]
    random_state = torch.random.get_rng_state()
    curve, auc = insertion(model, images, saliency, ties="random")
    assert not curve.requires_grad
    assert not auc.requires_grad
    assert all(map(torch.equal, (images, saliency), kept))
    assert torch.equal(torch.random.get_rng_state(), random_state)


def test_results_stay_on_the_device_and_agree_with_the_cpu(device):
    model, images, saliency = linear(3, 6, 6), torch.randn(2, 3, 6, 6), torch.randn(2, 6, 6)
    expected = insertion(model, images, saliency)
    result = insertion(model.to(device), images.to(device), saliency)
    assert result.curve.device.type == result.auc.device.type == torch.device(device).type
    torch.testing.assert_close(result.curve.cpu(), expected.curve)


def test_the_blur_is_the_convolution_of_the_published_code():
    impulse = np.zeros((11, 11))
    impulse[5, 5] = 1
    kernel = gaussian_filter(impulse, 5)
    images = torch.randn(2, 3, 17, 9, dtype=torch.float64)
    expected = np.array(
        [[convolve2d(plane, kernel, mode="same") for plane in image] for image in images.numpy()]
    )
    torch.testing.assert_close(blurred(images), torch.from_numpy(expected))
    convolved = torch.nn.functional.conv2d(
        images, torch.from_numpy(kernel).expand(3, 1, 11, 11), padding=5, groups=3
    )
    torch.testing.assert_close(blurred(images), convolved)


def test_the_blur_keeps_the_type_and_is_exact_under_autocast():
    images = torch.randn(1, 1, 12, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = blurred(images)
    assert torch.equal(under_autocast, blurred(images))
    assert blurred(images.half()).dtype == torch.float16


def error_of(call):
    with pytest.raises(ValueError) as error:
        call()
    return type(error.value), str(error.value)


@GAMES
def test_what_cannot_be_played_is_refused_before_anything_is_asked(game):
    name = game.__name__
    recorder = Recorder(linear(3, 4, 4))
    box = BlackBox(recorder, output="logits", num_classes=4)
    images, maps = torch.randn(2, 3, 4, 4), torch.randn(2, 4, 4)
    cases = [
        (
            lambda: game(box, images[0], maps),
            ShapeError,
            "expected images (N, C, H, W), got shape (3, 4, 4)",
        ),
        (
            lambda: game(box, images[:0], maps[:0]),
            ShapeError,
            "expected at least one image, got shape (0, 3, 4, 4)",
        ),
        (
            lambda: game(box, images.byte(), maps),
            ShapeError,
            "expected floating-point images, got torch.uint8; convert with images.float() / 255",
        ),
        (
            lambda: game(box, (images, images), maps),
            ShapeError,
            f"the {name} game explains one tensor of images, got (Tensor, Tensor)",
        ),
        (
            lambda: game(box, images, maps[:, :2, :2]),
            ShapeError,
            f"the {name} game needs one value per pixel: maps (2, 2, 2) do not fit images "
            "(2, 3, 4, 4); one map per image, enlarged to the image's size, for instance with "
            "captum.attr.LayerAttribution.interpolate",
        ),
        (
            lambda: game(box, images, maps[:1]),
            ShapeError,
            f"the {name} game needs one value per pixel: maps (1, 4, 4) do not fit images "
            "(2, 3, 4, 4); one map per image, enlarged to the image's size, for instance with "
            "captum.attr.LayerAttribution.interpolate",
        ),
        (
            lambda: game(box, images, maps / 0),
            InputError,
            "32 of 32 map values are NaN or infinite; such pixels have no place in an order of "
            "importance",
        ),
        (
            lambda: game(box, images, maps, substrate=torch.zeros(2, 4, 4)),
            ShapeError,
            "a substrate of shape (2, 4, 4) cannot be broadcast to images of shape (2, 3, 4, 4)",
        ),
        (lambda: game(box, images, maps, step=0), InputError, "step must be at least 1, got 0"),
        (
            lambda: game(box, images, maps, batch_size=0),
            InputError,
            "batch_size must be at least 1, got 0",
        ),
        (
            lambda: game(box, images, maps, target=[0, 1, 2]),
            TargetError,
            "expected one target or 2 of them, one per sample, got shape (3,)",
        ),
        (
            lambda: game(box, images, maps, target=4),
            TargetError,
            "target 4 is out of range for 4 classes (0 … 3)",
        ),
    ]
    for call, kind, message in cases:
        assert error_of(call) == (kind, message)
    assert recorder.asked == []


def test_a_target_beyond_the_first_answer_is_refused():
    # Nothing says how many classes there are before the first answer.
    images, maps = torch.randn(2, 1, 2, 2), torch.randn(2, 2, 2)
    assert error_of(lambda: deletion(linear(1, 2, 2), images, maps, target=[0, 4])) == (
        TargetError,
        "target 4 is out of range for 4 classes (0 … 3)",
    )


def test_a_box_without_logits_cannot_be_scored_by_logits():
    images, maps = torch.randn(1, 1, 2, 2), torch.randn(1, 2, 2)
    box = BlackBox(bright_label, output="labels", num_classes=2)
    assert error_of(lambda: deletion(box, images, maps, 0, score="logit")) == (
        InputError,
        "score='logit' needs a black box that answers logits, and this one answers labels; use "
        "score='probability'",
    )
    assert box.queries == 0


def test_unknown_options_are_refused(as_users_call):
    images = torch.randn(1, 1, 2, 2)
    assert error_of(lambda: substrate_images(images, "black")) == (
        InputError,
        "substrate is 'zeros', 'blur' or a tensor, got 'black'",
    )
    assert error_of(lambda: ClassScores(constant_box(0.5), images, 0, "margin")) == (
        InputError,
        "score is one of 'probability', 'logit', got 'margin'",
    )


def test_a_bar_is_shown_on_request_only(capsys):
    images, maps = torch.randn(1, 1, 2, 2), torch.randn(1, 2, 2)
    deletion(linear(1, 2, 2), images, maps, 0)
    assert capsys.readouterr().err == ""
    insertion(linear(1, 2, 2), images, maps, 0, show_progress=True)
    assert "insertion: 100%" in capsys.readouterr().err
