"""RISE."""

import itertools
import math

import numpy as np
import pytest
import torch
from captum.attr import NoiseTunnel, PerturbationAttribution
from captum.metrics import infidelity, sensitivity_max
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from captum_blackbox.black_box import BlackBox
from captum_blackbox.errors import InputError, ShapeError, TargetError
from captum_blackbox.student import rise as rise_module
from captum_blackbox.student.rise import RISE, MaskDraws, draw_masks, render_masks


def model(channels=3, size=(8, 8), classes=4):
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * math.prod(size), classes))


def two_classes(score):
    return BlackBox(lambda x: torch.stack([score(x), 1 - score(x)], dim=1), output="probs")


def naive_draws(draws):
    return zip(draws.open_cells.numpy(), draws.shifts.numpy(), strict=True)


def naive_mask(cells, shift, size):
    """Enlarge by the definition of bilinear interpolation, shift, cut; pixel by pixel."""
    grid = len(cells)
    cell = [math.ceil(length / grid) for length in size]
    enlarged = [(grid + 1) * each for each in cell]
    mask = np.zeros(size)
    for row, column in np.ndindex(*size):
        weights = []
        for axis, pixel in enumerate((row, column)):
            pixel += math.floor(float(shift[axis]) * cell[axis])
            position = (pixel + 0.5) * grid / enlarged[axis] - 0.5
            position = min(max(position, 0), grid - 1)
            low = min(math.floor(position), grid - 1)
            high = min(low + 1, grid - 1)
            weights.append(((low, 1 - (position - low)), (high, position - low)))
        for (i, a), (j, b) in itertools.product(*weights):
            mask[row, column] += a * b * float(cells[i][j])
    return mask


@given(
    grid=st.integers(1, 4),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 999),
)
@settings(max_examples=40, deadline=None)
def test_masks_are_enlarged_shifted_and_cut_as_defined(grid, size, seed):
    draws = draw_masks(3, grid, 0.5, seed)
    expected = [naive_mask(*each, size) for each in naive_draws(draws)]
    masks = render_masks(draws, size)
    torch.testing.assert_close(masks, torch.tensor(np.array(expected)).float())


def test_masks_are_windows_of_an_ordinary_bilinear_enlargement():
    draws = draw_masks(5, 7, 0.5, seed=0)
    cells = draws.open_cells[:, None].float()
    enlarged = F.interpolate(cells, size=(8 * 4, 8 * 5), mode="bilinear")[:, 0]  # 25 x 31 pixels
    for mask, large, shift in zip(
        render_masks(draws, (25, 31)), enlarged, draws.shifts, strict=True
    ):
        down, right = int(shift[0] * 4), int(shift[1] * 5)
        window = large[down : down + 25, right : right + 31]
        torch.testing.assert_close(mask, window)


def test_shifts_reach_every_place_within_a_cell():
    shifts = (draw_masks(2000, 2, 0.5, seed=0).shifts * 4).floor()
    assert {tuple(each) for each in shifts.int().tolist()} == set(
        itertools.product(range(4), range(4))
    )


@pytest.mark.parametrize("probability", [0.1, 0.5, 1.0])
def test_a_pixel_is_visible_with_the_given_probability(probability):
    masks = render_masks(draw_masks(4000, 4, probability, seed=0), (10, 13))
    assert float(masks.min()) >= 0
    assert float(masks.max()) <= 1 + 1e-6
    # A mask value is a mean of cells, so its variance is at most that of one cell.
    error = math.sqrt(probability * (1 - probability) / 4000)
    assert float((masks.mean(0) - probability).abs().max()) <= 5 * error + 1e-6


def test_a_score_that_ignores_the_image_gives_the_mean_mask():
    box = two_classes(lambda x: torch.full((len(x),), 0.3))
    rise = RISE(box, masks=50, grid=3, probability=0.4)
    masks = render_masks(draw_masks(50, 3, 0.4, 0), (6, 7))
    expected = 0.3 * masks.mean(0) / 0.4
    torch.testing.assert_close(rise.attribute(torch.rand(1, 1, 6, 7), 0)[0, 0], expected)


GRID, SIDE = 2, 4


def all_draws():
    """Every mask of 2 x 2 cells with every shift, once: 16 · 4 of them, as if p were 1/2."""
    cells = list(itertools.product([False, True], repeat=GRID * GRID))
    shifts = list(itertools.product([0.0, 0.5], repeat=2))
    pairs = list(itertools.product(cells, shifts))
    return MaskDraws(
        torch.tensor([cell for cell, _ in pairs]).view(-1, GRID, GRID),
        torch.tensor([shift for _, shift in pairs]),
    )


@pytest.fixture
def every_mask(monkeypatch):
    monkeypatch.setattr(rise_module, "draw_masks", lambda *_: all_draws())
    return {"masks": len(all_draws().shifts), "grid": GRID, "probability": 0.5}


def test_over_all_masks_a_linear_score_has_its_closed_form(every_mask):
    # S_j = sum_k c_k x_k E[M_k M_j] / p, and for independent cells with M = sum_a r_a B_a
    # E[M_k M_j] = p² sum_a r_ka sum_b r_jb + p (1 - p) sum_a r_ka r_ja, averaged over the shifts.
    p = 0.5
    image = torch.rand(SIDE, SIDE, dtype=torch.float64)
    weights = torch.rand(SIDE, SIDE, dtype=torch.float64) / SIDE**2
    contributions = (weights * image).flatten().numpy()
    moments = np.zeros((SIDE**2, SIDE**2))
    for shift in itertools.product([0.0, 0.5], repeat=2):
        one_cell = np.eye(GRID * GRID).reshape(-1, GRID, GRID)
        share = np.array([naive_mask(cell, shift, (SIDE, SIDE)).ravel() for cell in one_cell]).T
        moments += (p**2 + p * (1 - p) * share @ share.T) / 4
    expected = (contributions @ moments / p).reshape(SIDE, SIDE)

    box = two_classes(lambda x: (x * weights).sum((1, 2, 3)))
    saliency = RISE(box, **every_mask).attribute(image[None, None], 0)[0, 0]
    torch.testing.assert_close(saliency, torch.from_numpy(expected), rtol=1e-6, atol=1e-7)


def some_score(images):
    """Not linear: the brightest pixel times the mean."""
    return images.flatten(1).amax(1) * images.mean((1, 2, 3))


def test_over_all_masks_any_score_is_the_mean_where_a_pixel_is_visible(every_mask):
    image = torch.rand(1, 1, SIDE, SIDE)
    expected = np.zeros((SIDE, SIDE))
    for cells, shift in naive_draws(all_draws()):
        mask = naive_mask(cells, shift, (SIDE, SIDE))
        score = float(some_score(image * torch.from_numpy(mask).float())[0])
        expected += score * mask / 64 / 0.5
    saliency = RISE(two_classes(some_score), **every_mask).attribute(image, 0)[0, 0]
    torch.testing.assert_close(saliency, torch.from_numpy(expected).float())


def test_random_masks_converge_to_all_masks(monkeypatch):
    image, number = torch.rand(1, 1, SIDE, SIDE), 20000
    box = two_classes(some_score)
    sampled = RISE(box, masks=number, grid=GRID, seed=3).attribute(image, 0)
    monkeypatch.setattr(rise_module, "draw_masks", lambda *_: all_draws())
    exact = RISE(box, masks=64, grid=GRID).attribute(image, 0)
    # |f M / p| <= 2, so no estimate has a standard deviation above 2 / sqrt(number).
    assert float((sampled - exact).abs().max()) <= 5 * 2 / math.sqrt(number)
    assert float((sampled - exact).abs().max()) > 0


def test_the_seed_decides_and_nothing_else():
    net, images = model(), torch.rand(2, 3, 8, 8)
    first = RISE(net, masks=20, seed=1).attribute(images, 0)
    state = torch.random.get_rng_state()
    torch.testing.assert_close(RISE(net, masks=20, seed=1).attribute(images, 0), first)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not torch.equal(RISE(net, masks=20, seed=2).attribute(images, 0), first)


@pytest.mark.parametrize("masks_per_eval", [1, 7, 1000])
def test_neither_chunks_nor_neighbours_change_the_result(masks_per_eval):
    rise, images, target = RISE(model(), masks=30), torch.rand(3, 3, 8, 8), [0, 1, 3]
    whole = rise.attribute(images, target)
    torch.testing.assert_close(rise.attribute(images, target, masks_per_eval=masks_per_eval), whole)
    for i in range(3):
        torch.testing.assert_close(rise.attribute(images[i : i + 1], target[i]), whole[i : i + 1])


def test_one_evaluation_fills_one_batch_of_the_box():
    asked = []

    def record(images):
        asked.append(len(images))
        return images.flatten(1)

    box = BlackBox(record, output="logits", batch_size=10)
    RISE(box, masks=7).attribute(torch.rand(3, 1, 2, 2), 0)
    assert asked == [9, 9, 3]
    asked.clear()
    RISE(box, masks=2).attribute(torch.rand(12, 1, 2, 2), 0)
    assert asked == [10, 2, 10, 2]


def test_without_a_target_the_prediction_is_explained_for_one_more_query_an_image():
    box, images = BlackBox(model(), output="logits"), torch.rand(5, 3, 8, 8) - 0.5
    rise = RISE(box, masks=11)
    named = rise.attribute(images, box(images).argmax(1))
    assert box.queries == 5 + 5 * 11
    torch.testing.assert_close(rise.attribute(images), named)
    assert box.queries == 2 * (5 + 5 * 11)


def test_a_box_of_labels_is_explained():
    box = BlackBox(
        lambda x: (x[:, 0, :4].mean((1, 2)) > 0.5).long(), output="labels", num_classes=2
    )
    saliency = RISE(box, masks=300, grid=4).attribute(torch.ones(1, 1, 8, 8))
    assert float(saliency[..., :4, :].mean()) > float(saliency[..., 4:, :].mean()) + 0.05


def test_shapes_follow_the_input():
    rise, images = RISE(model(), masks=4), torch.rand(2, 3, 8, 8)
    alone = rise.attribute(images, 1)
    assert alone.shape == (2, 1, 8, 8)
    (in_tuple,) = rise.attribute((images,), 1)
    torch.testing.assert_close(in_tuple, alone)
    spread = rise.attribute(images, 1, expand_to_input=True)
    assert spread.shape == images.shape
    torch.testing.assert_close(spread.sum(1, keepdim=True), alone)
    torch.testing.assert_close(spread, spread[:, :1].expand_as(spread))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32(dtype):
    images = torch.rand(1, 3, 8, 8).to(dtype)
    seen = []

    def answer(x):
        seen.append(x.dtype)
        return torch.full((len(x), 2), 0.5)

    saliency = RISE(answer, output="probs", masks=3000, grid=2).attribute(images, 0)
    assert saliency.dtype == dtype
    assert set(seen) == {dtype}
    # A sum of 3000 numbers in half precision would stop growing far below.
    exact = RISE(answer, output="probs", masks=3000, grid=2).attribute(images.float(), 0)
    torch.testing.assert_close(saliency, exact.to(dtype))


def test_double_precision_stays():
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    assert RISE(model().double(), masks=3).attribute(images, 0).dtype == torch.float64


def test_autocast_rounds_neither_masks_nor_sums():
    box = two_classes(lambda x: x.float().mean((1, 2, 3)))
    rise, images = RISE(box, masks=40, grid=4), torch.rand(1, 3, 9, 9)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        masks = render_masks(draw_masks(40, 4, 0.5, 0), (9, 9))
        under_autocast = rise.attribute(images, 0)
    assert torch.equal(masks, render_masks(draw_masks(40, 4, 0.5, 0), (9, 9)))
    assert torch.equal(under_autocast, rise.attribute(images, 0))


def test_results_stay_on_the_device_and_agree_with_the_cpu(device):
    net, images = model(), torch.rand(2, 3, 8, 8)
    expected = RISE(net, masks=20).attribute(images, 1)
    result = RISE(net.to(device), masks=20).attribute(images.to(device), 1)
    assert result.device.type == torch.device(device).type
    torch.testing.assert_close(result.cpu(), expected)


def test_it_is_a_perturbation_method_of_captum():
    rise = RISE(model())
    assert isinstance(rise, PerturbationAttribution)
    assert isinstance(rise.forward_func, BlackBox)
    assert RISE.get_name() == "RISE"
    assert rise.multiplies_by_inputs
    assert not rise.has_convergence_delta()
    with pytest.raises(NotImplementedError) as error:
        rise.attribute_future()
    assert str(error.value) == "attribute_future is not implemented for RISE"


def test_noise_tunnel_averages_it():
    rise, images = RISE(model(), masks=10), torch.rand(2, 3, 8, 8)
    smooth = NoiseTunnel(rise).attribute(
        images, nt_type="smoothgrad", nt_samples=3, stdevs=0.0, target=[1, 2]
    )
    torch.testing.assert_close(smooth, rise.attribute(images, [1, 2]))


def test_captum_metrics_judge_it():
    rise, images = RISE(model(), masks=10), torch.rand(2, 3, 8, 8)
    attributions = rise.attribute(images, [1, 2], expand_to_input=True)

    def perturb(inputs):
        noise = torch.randn_like(inputs) * 0.01
        return noise, inputs - noise

    error = infidelity(rise.forward_func, perturb, images, attributions, target=[1, 2])
    assert error.shape == (2,)
    sensitivity = sensitivity_max(rise.attribute, images, target=[1, 2])
    assert sensitivity.shape == (2,)
    assert float(sensitivity.max()) < 0.5


def test_gradients_and_inputs_are_left_alone():
    net, images = model(), torch.rand(1, 3, 8, 8, requires_grad=True)
    before = images.detach().clone()
    saliency = RISE(net, masks=5).attribute(images, 0)
    assert not saliency.requires_grad
    assert images.requires_grad
    assert torch.equal(images, before)
    assert images.grad is None
    assert all(each.grad is None for each in net.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"masks": 0}, "masks must be at least 1, got 0"),
        ({"grid": 0}, "grid must be at least 1, got 0"),
        ({"probability": 0.0}, "probability must lie in (0, 1], got 0.0"),
        ({"probability": 1.5}, "probability must lie in (0, 1], got 1.5"),
        ({"probability": float("nan")}, "probability must lie in (0, 1], got nan"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings, message):
    with pytest.raises(InputError) as error:
        RISE(model(), **settings)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (
            {"inputs": torch.rand(3, 8, 8)},
            ShapeError,
            "expected images (N, C, H, W), got shape (3, 8, 8)",
        ),
        (
            {"inputs": torch.zeros(1, 3, 8, 8, dtype=torch.uint8)},
            ShapeError,
            "expected floating-point images, got torch.uint8; convert with images.float() / 255",
        ),
        (
            {"inputs": (torch.rand(1, 3, 8, 8),) * 2},
            ShapeError,
            "RISE explains one tensor of images, got (Tensor, Tensor)",
        ),
        (
            {"additional_forward_args": (1,)},
            InputError,
            "a black box takes images and nothing else; additional_forward_args must be None, got "
            "tuple",
        ),
        ({"masks_per_eval": 0}, InputError, "masks_per_eval must be at least 1, got 0"),
        ({"target": 4}, TargetError, "target 4 is out of range for 4 classes (0 … 3)"),
    ],
)
def test_calls_that_cannot_be_answered_are_refused_before_anything_is_asked(
    arguments, kind, message
):
    box = BlackBox(model(), output="logits", num_classes=4)
    with pytest.raises(kind) as error:
        RISE(box, masks=3).attribute(**{"inputs": torch.rand(1, 3, 8, 8), "target": 0} | arguments)
    assert str(error.value) == message
    assert box.queries == 0


def test_a_bar_is_shown_on_request_only(capsys):
    rise = RISE(model(), masks=3)
    rise.attribute(torch.rand(1, 3, 8, 8), 0)
    assert capsys.readouterr().err == ""
    rise.attribute(torch.rand(1, 3, 8, 8), 0, show_progress=True)
    assert "RISE: 100%" in capsys.readouterr().err
