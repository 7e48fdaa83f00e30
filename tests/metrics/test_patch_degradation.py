"""Patch degradation."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from captum_blackbox.black_box import BlackBox, TopK
from captum_blackbox.errors import InputError, ShapeError, TargetError
from captum_blackbox.metrics import patch_degradation


def linear(channels, height, width, classes=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, classes))


def contrast(x):
    """A score that averaging lowers: the mean of the squared pixels."""
    return x.square().mean((1, 2, 3))


def two_classes(score):
    """A box of probabilities whose class 0 has the given score."""
    return BlackBox(lambda x: torch.stack([score(x), 1 - score(x)], dim=1), output="probs")


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


def naive_cells(height, width, patch, edge):
    """The pixels of each patch, in reading order of the patches."""
    cells = []
    for top in range(0, height, patch):
        for left in range(0, width, patch):
            pixels = [
                (row, column)
                for row in range(top, min(top + patch, height))
                for column in range(left, min(left + patch, width))
            ]
            if edge == "partial" or len(pixels) == patch * patch:
                cells.append(pixels)
    return cells


def naive_states(image, saliency, patch, edge, steps, every):
    """The images after 0, every, … patches of one image (C, H, W), by the paper's words."""
    cells = naive_cells(*saliency.shape, patch, edge)
    importance = [sum(saliency[pixel] for pixel in cell) / len(cell) for cell in cells]
    order = sorted(range(len(cells)), key=lambda i: (-importance[i], i))
    state = image.copy()
    states = [state.copy()]
    for number, i in enumerate(order[:steps], start=1):
        for channel in range(len(image)):
            mean = sum(float(image[channel][pixel]) for pixel in cells[i]) / len(cells[i])
            for pixel in cells[i]:
                state[channel][pixel] = mean
        if number % every == 0:
            states.append(state.copy())
    return np.stack(states)


@pytest.mark.parametrize("edge", ["drop", "partial"])
@pytest.mark.parametrize(
    ("channels", "height", "width", "patch", "steps", "every"),
    [
        (3, 6, 6, 2, 100, 1),  # nothing left over
        (1, 7, 5, 2, 100, 1),  # a strip on both sides
        (3, 8, 6, 3, 3, 1),  # on one side, and fewer steps than patches
        (2, 5, 9, 4, 2, 2),
        (2, 4, 6, 1, 24, 5),  # pixels, and a last step that is no multiple of `every`
    ],
)
def test_the_images_asked_and_the_curve_follow_the_paper(
    channels, height, width, patch, steps, every, edge
):
    recorder = Recorder(linear(channels, height, width))
    images = torch.randn(3, channels, height, width)
    saliency = torch.randint(-2, 2, (3, height, width)).float()  # ties, and negative patches
    targets = [2, 0, 3]
    curve, aopc, baseline = patch_degradation(
        recorder,
        images,
        saliency,
        targets,
        patch=patch,
        steps=steps,
        every=every,
        edge=edge,
        batch_size=4,
    )
    expected = [
        torch.from_numpy(
            naive_states(image.numpy(), each.double().numpy(), patch, edge, steps, every)
        )
        for image, each in zip(images, saliency, strict=True)
    ]
    torch.testing.assert_close(recorder.images, torch.cat(expected))
    for i in range(3):
        with torch.no_grad():
            scores = recorder.answer(expected[i]).softmax(1)[:, targets[i]]
        torch.testing.assert_close(curve[i], scores)
        area = sum(float(scores[0] - each) for each in scores) / len(scores)
        torch.testing.assert_close(float(aopc[i]), area, rtol=1e-5, atol=1e-6)
    assert baseline is None


def test_a_degradation_by_hand():
    # Patches 3, 1 | 0, 2: their squares add up to 10 and 4; after averaging, to 8 and 2.
    image = torch.tensor([[[[3.0, 1.0, 0.0, 2.0]]]])
    box = two_classes(lambda x: x.square().sum((1, 2, 3)) / 20)
    curve, aopc, _ = patch_degradation(
        box, image, torch.tensor([[[0.0, 0.0, -9.0, 10.0]]]), 0, patch=2, edge="partial"
    )
    torch.testing.assert_close(curve, torch.tensor([[0.7, 0.6, 0.5]]))
    torch.testing.assert_close(aopc, torch.tensor([0.1]))
    curve, _, _ = patch_degradation(
        box, image, torch.tensor([[[1.0, 0.0, 0.0, 0.0]]]), 0, patch=3, edge="partial"
    )
    # 3 · (4/3)² + 2² = 28/3, and the patch of one pixel is its own mean.
    torch.testing.assert_close(curve, torch.tensor([[14.0, 28 / 3, 28 / 3]]) / 20)


def test_smaller_patches_compare_by_their_mean():
    # 2 x 1 pixels of 2 are more important than 2 x 2 pixels of 1.5, whose sum is larger.
    saliency = torch.tensor([[[1.5, 1.5, 2.0], [1.5, 1.5, 2.0]]])
    recorder = Recorder(linear(1, 2, 3))
    images = torch.randn(1, 1, 2, 3)
    patch_degradation(recorder, images, saliency, 0, patch=2, steps=1, edge="partial")
    changed = (recorder.images[1] != images[0])[0]
    assert changed.tolist() == [[False, False, True]] * 2


def test_equal_patches_go_in_reading_order():
    images = torch.randn(1, 1, 4, 4)
    recorder = Recorder(linear(1, 4, 4))
    patch_degradation(recorder, images, torch.zeros(1, 4, 4), 0, patch=2)
    states = recorder.images[:, 0]
    firsts = [(states[n + 1] != states[n]).nonzero()[0].tolist() for n in range(4)]
    assert firsts == [[0, 0], [0, 2], [2, 0], [2, 2]]


def test_by_default_the_patches_are_those_of_the_paper():
    images, maps = torch.randn(1, 1, 100, 99), torch.randn(1, 100, 99)
    recorder = Recorder(linear(1, 100, 99))
    curve, _, _ = patch_degradation(recorder, images, maps, 0)
    assert curve.shape == (1, 101)  # of 11 · 11 patches
    changed = (recorder.images[1:] != recorder.images[:-1]).flatten(1).sum(1)
    assert changed.tolist() == [81] * 100
    assert torch.equal(recorder.images[-1][:, 99:], images[0][:, 99:])


@pytest.mark.parametrize("edge", ["drop", "partial"])
def test_it_runs_from_the_image_to_its_patch_means(edge):
    images = torch.randn(2, 3, 7, 9)
    recorder = Recorder(linear(3, 7, 9))
    maps = -torch.rand(2, 7, 9)  # every patch has a negative mean, and all are replaced
    curve, _, _ = patch_degradation(recorder, images, maps, 0, patch=4, edge=edge)
    asked = recorder.images.view(2, -1, 3, 7, 9)
    assert torch.equal(asked[:, 0], images)
    torch.testing.assert_close(curve[:, 0], recorder.answer(images).softmax(1)[:, 0].detach())
    expected = images.clone()
    for cell in naive_cells(7, 9, 4, edge):
        rows, columns = zip(*cell, strict=True)
        expected[:, :, rows, columns] = images[:, :, rows, columns].mean(2, keepdim=True)
    torch.testing.assert_close(asked[:, -1], expected)
    left = 7 * 9 - sum(map(len, naive_cells(7, 9, 4, edge)))
    unchanged = (asked[:, -1] == images).all(1).flatten(1).sum(1)
    assert unchanged.tolist() == [left, left] == [{"drop": 31, "partial": 0}[edge]] * 2


def test_the_order_of_true_contributions_gives_the_lowest_curve_of_all_orders():
    # Averaging takes from the score the variance within a patch, whatever the other patches do.
    image = torch.rand(1, 1, 4, 6, dtype=torch.float64)
    patches = image.unfold(2, 2, 2).unfold(3, 2, 2).reshape(6, 4)
    contribution = patches.var(1, correction=0)
    best = contribution.view(2, 3).repeat_interleave(2, 0).repeat_interleave(2, 1)[None]
    every_order = torch.tensor(list(itertools.permutations(range(6)))).double().view(-1, 2, 3)
    maps = every_order.repeat_interleave(2, 1).repeat_interleave(2, 2)
    images = image.expand(len(maps), -1, -1, -1)
    box = two_classes(contrast)
    lowest = patch_degradation(box, image, best, 0, patch=2)
    others = patch_degradation(box, images, maps, 0, patch=2)
    falls = contribution.sort(descending=True).values.cumsum(0) / 6
    torch.testing.assert_close(lowest.curve[0, 0] - lowest.curve[0, 1:], falls)
    assert bool((others.curve >= lowest.curve - 1e-12).all())
    assert int((others.aopc > lowest.aopc - 1e-12).sum()) == 1  # and no other order is as good


def test_a_map_of_the_contributions_beats_random_orders_and_its_negative_loses():
    images = torch.rand(8, 3, 12, 12) * torch.rand(8, 1, 12, 12).round()
    maps = (images - images.mean((2, 3), keepdim=True)).square()
    box = two_classes(contrast)
    good = patch_degradation(box, images, maps, 0, patch=3, random_orders=20)
    bad = patch_degradation(box, images, -maps, 0, patch=3)
    assert bool((good.curve.mean(0) <= good.baseline.mean(0) + 1e-6).all())
    assert bool((good.baseline.mean(0) <= bad.curve.mean(0) + 1e-6).all())
    assert bool((good.aopc > bad.aopc).all())


def test_the_baseline_is_the_mean_curve_of_random_orders():
    images, maps = torch.randn(2, 1, 4, 6), torch.randn(2, 4, 6)
    recorder = Recorder(linear(1, 4, 6))
    result = patch_degradation(recorder, images, maps, 1, patch=2, random_orders=5, batch_size=3)
    # The clean image, 6 patches for the map, and 6 for each order without the clean image.
    states = recorder.images[2 * 7 :].view(5, 2, 6, 24)
    before = torch.cat([images.flatten(1).expand(5, 2, -1)[:, :, None], states[:, :, :-1]], dim=2)
    assert ((states != before).sum(3) == 4).all()  # one patch at a time
    firsts = (states != before).int().argmax(3)
    assert (firsts.sort(2).values == torch.tensor([0, 2, 4, 12, 14, 16])).all()
    assert len({tuple(each) for each in firsts.flatten(0, 1).tolist()}) > 8  # of 10
    scores = recorder.answer(states.reshape(-1, 1, 4, 6)).softmax(1)[:, 1].view(5, 2, 6)
    torch.testing.assert_close(result.baseline[:, 1:], scores.mean(0))
    assert torch.equal(result.baseline[:, 0], result.curve[:, 0])
    # All orders end with the same image.
    torch.testing.assert_close(result.baseline[:, -1], result.curve[:, -1])


def test_the_baseline_depends_on_the_seed_and_the_place_only():
    model, images = linear(1, 6, 6), torch.randn(1, 1, 6, 6).expand(3, -1, -1, -1)

    def baseline(batch, seed=0, orders=2):
        maps = torch.randn(batch, 6, 6)
        return patch_degradation(
            model, images[:batch], maps, 0, patch=2, random_orders=orders, seed=seed
        ).baseline

    whole = baseline(3)
    torch.testing.assert_close(baseline(2), whole[:2])
    assert not torch.allclose(whole[0], whole[1])
    assert not torch.allclose(baseline(3, seed=1), whole)


@pytest.mark.parametrize("batch_size", [1, 5, 1000])
def test_neither_chunks_nor_neighbours_change_the_result(batch_size):
    model, images, maps = linear(2, 7, 5), torch.randn(4, 2, 7, 5), torch.randn(4, 7, 5)
    settings = {"patch": 2, "edge": "partial", "random_orders": 2}
    whole = patch_degradation(model, images, maps, **settings)
    chunked = patch_degradation(model, images, maps, batch_size=batch_size, **settings)
    torch.testing.assert_close(chunked, whole)
    for i in range(4):
        alone = patch_degradation(model, images[i : i + 1], maps[i : i + 1], **settings)
        torch.testing.assert_close(alone.curve, whole.curve[i : i + 1])
        torch.testing.assert_close(alone.aopc, whole.aopc[i : i + 1])


@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    patch=st.integers(1, 14),
    steps=st.integers(1, 30),
    edge=st.sampled_from(["drop", "partial"]),
)
def test_a_constant_score_has_no_area(height, width, patch, steps, edge):
    cells = len(naive_cells(height, width, patch, edge))
    box = two_classes(lambda x: torch.full((len(x),), 0.25))
    images = torch.ones(1, 1, height, width)
    call = {"patch": patch, "steps": steps, "edge": edge}
    if cells == 0:
        with pytest.raises(InputError, match="no patch of"):
            patch_degradation(box, images, images, 0, **call)
        return
    curve, aopc, _ = patch_degradation(box, images, images, 0, **call)
    assert curve.tolist() == [[0.25] * (min(cells, steps) + 1)]
    assert aopc.tolist() == [0.0]


def test_at_most_batch_size_images_are_built_at_a_time():
    recorder = Recorder(linear(1, 4, 4))
    images, maps = torch.randn(3, 1, 4, 4), torch.randn(3, 4, 4)
    patch_degradation(recorder, images, maps, 0, patch=2, batch_size=7)
    assert [len(each) for each in recorder.asked] == [7, 7, 1]
    recorder = Recorder(linear(1, 4, 4))
    box = BlackBox(recorder, output="logits", batch_size=4)
    patch_degradation(box, images, maps, 0, patch=2, every=2, random_orders=1)
    assert [len(each) for each in recorder.asked] == [4, 4, 1, 4, 2]


@pytest.mark.parametrize(("target", "more"), [(None, 5), (1, 0)])
def test_queries_are_as_many_as_documented(target, more):
    box = BlackBox(linear(1, 6, 6), output="logits")
    images, maps = torch.randn(5, 1, 6, 6), torch.randn(5, 6, 6)
    curve, _, _ = patch_degradation(
        box, images, maps, target, patch=2, steps=7, every=3, random_orders=4
    )
    assert curve.shape == (5, 3)  # after 0, 3 and 6 patches
    assert box.queries == 5 * (3 + 4 * 2) + more


def test_without_a_target_the_prediction_on_the_clean_image_is_watched():
    model, images, maps = linear(1, 4, 4), torch.randn(6, 1, 4, 4), torch.randn(6, 4, 4)
    predicted = model(images).argmax(1)
    assert len(set(predicted.tolist())) > 1
    torch.testing.assert_close(
        patch_degradation(model, images, maps, patch=2).curve,
        patch_degradation(model, images, maps, predicted, patch=2).curve,
    )


def test_maps_of_every_form_and_tuples_are_accepted():
    model, images, maps = linear(2, 4, 4), torch.randn(2, 2, 4, 4), torch.randn(2, 4, 4)
    expected = patch_degradation(model, images, maps, 1, patch=2).curve
    by_channel = torch.stack([maps - 1, torch.ones(2, 4, 4)], dim=1)
    for each in (maps[:, None], (maps,), by_channel):
        torch.testing.assert_close(
            patch_degradation(model, (images,), each, 1, patch=2).curve, expected
        )
    largest = patch_degradation(model, images, maps, 1, patch=2, channels="max_abs").curve
    torch.testing.assert_close(
        largest, patch_degradation(model, images, maps.abs(), 1, patch=2).curve
    )


def test_other_boxes_and_the_logit_can_be_watched():
    images, maps = torch.randn(1, 1, 2, 2), torch.zeros(1, 2, 2)
    model = linear(1, 2, 2)
    curve, _, _ = patch_degradation(model, images, maps, 3, patch=2, score="logit")
    ends = torch.cat([images, images.mean().expand(1, 1, 2, 2)])
    torch.testing.assert_close(curve[0], model(ends).detach()[:, 3])

    def top_1(x):
        return TopK(torch.full((len(x), 1), 0.7), (x.amax((1, 2, 3)) > 0.5).long()[:, None])

    box = BlackBox(top_1, output="topk", num_classes=5)
    image = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    curve, aopc, _ = patch_degradation(box, image, maps, patch=2)
    torch.testing.assert_close(curve, torch.tensor([[0.7, 0.0]]))
    torch.testing.assert_close(aopc, torch.tensor([0.35]))


def test_half_precision_is_averaged_and_scored_in_float32():
    # A sum of 81 values of 1001 has no place in float16.
    images, maps = torch.full((1, 1, 9, 9), 1001.0).half(), torch.rand(1, 9, 9).half()
    recorder = Recorder(lambda x: x.mean((2, 3)).float())
    curve, aopc, _ = patch_degradation(recorder, images, maps, 0, score="logit")
    assert torch.equal(recorder.images, images.expand(2, -1, -1, -1))
    assert curve.dtype == aopc.dtype == torch.float32


def test_the_caller_keeps_its_tensors_and_random_numbers():
    model, images, maps = linear(1, 4, 4), torch.randn(2, 1, 4, 4), torch.randn(2, 4, 4)
    images.requires_grad_()
    kept = [each.detach().clone() for each in (images, maps)]
    random_state = torch.random.get_rng_state()
    result = patch_degradation(model, images, maps, patch=2, random_orders=1)
    assert not any(each.requires_grad for each in result)
    assert all(map(torch.equal, (images, maps), kept))
    assert torch.equal(torch.random.get_rng_state(), random_state)


def test_results_stay_on_the_device_and_agree_with_the_cpu(device):
    model, images, maps = linear(3, 7, 6), torch.randn(2, 3, 7, 6), torch.randn(2, 7, 6)
    settings = {"patch": 2, "edge": "partial", "random_orders": 2}
    expected = patch_degradation(model, images, maps, **settings)
    result = patch_degradation(model.to(device), images.to(device), maps, **settings)
    assert {each.device.type for each in result} == {torch.device(device).type}
    torch.testing.assert_close([each.cpu() for each in result], list(expected))


def test_a_bar_counts_the_queries_on_request_only(capsys):
    model, images, maps = linear(1, 4, 4), torch.randn(1, 1, 4, 4), torch.randn(1, 4, 4)
    patch_degradation(model, images, maps, 0, patch=2, random_orders=2)
    assert capsys.readouterr().err == ""
    patch_degradation(model, images, maps, 0, patch=2, random_orders=2, show_progress=True)
    assert "patch degradation: 100%" in (shown := capsys.readouterr().err)
    assert "13/13" in shown


def test_what_cannot_be_degraded_is_refused_before_anything_is_asked(as_users_call):
    recorder = Recorder(linear(3, 4, 4))
    box = BlackBox(recorder, output="logits", num_classes=4)
    images, maps = torch.randn(2, 3, 4, 4), torch.randn(2, 4, 4)

    def call(images=images, maps=maps, target=0, **settings):
        return lambda: patch_degradation(box, images, maps, target, **{"patch": 2, **settings})

    cases = [
        (
            call(images[0]),
            ShapeError,
            "expected images (N, C, H, W), got shape (3, 4, 4)",
        ),
        (
            call((images, images)),
            ShapeError,
            "patch degradation explains one tensor of images, got (Tensor, Tensor)",
        ),
        (
            call(maps=maps[:1]),
            ShapeError,
            "patch degradation needs one value per pixel: maps (1, 4, 4) do not fit images "
            "(2, 3, 4, 4); one map per image, enlarged to the image's size, for instance with "
            "captum.attr.LayerAttribution.interpolate",
        ),
        (
            call(maps=maps / 0),
            InputError,
            "32 of 32 map values are NaN or infinite; such pixels have no place in an order of "
            "importance",
        ),
        (
            call(patch=5),
            InputError,
            "no patch of 5 x 5 pixels fits into images of 4 x 4; choose a smaller patch, or "
            "edge='partial'",
        ),
        (call(patch=0), InputError, "patch must be at least 1, got 0"),
        (call(steps=0), InputError, "steps must be at least 1, got 0"),
        (call(every=0), InputError, "every must be at least 1, got 0"),
        (
            call(every=3, steps=2),
            InputError,
            "every=3 leaves no point after the clean one: only 2 patches are replaced (4 in the "
            "image, steps=2)",
        ),
        (call(random_orders=-1), InputError, "random_orders must be at least 0, got -1"),
        (call(batch_size=0), InputError, "batch_size must be at least 1, got 0"),
        (call(edge="pad"), InputError, "edge is one of 'drop', 'partial', got 'pad'"),
        (
            call(channels="mean"),
            InputError,
            "channels is one of 'sum', 'abs_sum', 'max_abs', got 'mean'",
        ),
        (
            call(score="margin"),
            InputError,
            "score is one of 'probability', 'logit', got 'margin'",
        ),
        (
            call(target=[0, 1, 2]),
            TargetError,
            "expected one target or 2 of them, one per sample, got shape (3,)",
        ),
        (call(target=4), TargetError, "target 4 is out of range for 4 classes (0 … 3)"),
    ]
    for refused, kind, message in cases:
        with pytest.raises(ValueError) as caught:
            refused()
        assert (type(caught.value), str(caught.value)) == (kind, message)
    assert recorder.asked == []
