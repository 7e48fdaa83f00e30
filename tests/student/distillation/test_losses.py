"""ALGORITHMS T01-T04, T07: losses against definitions written out in loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from captum_blackbox.black_box import TopK
from captum_blackbox.errors import InputError
from captum_blackbox.student.distillation.losses import (
    PROB_FLOOR,
    best_class,
    bucket_kl,
    centred_mse,
    check_loss,
    distillation_loss,
    softened_kl,
    teacher_logits,
)


def random_logits(seed, rows=4, classes=6, scale=2.0):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, classes, dtype=torch.float64, generator=generator)


def naive_softmax(row):
    shifted = [math.exp(value - max(row)) for value in row]
    return [value / sum(shifted) for value in shifted]


def naive_kl(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def naive_kd(student, teacher_probabilities, temperature):
    """T² · KL(p^(1/T) / Σ p^(1/T) ‖ softmax(z / T)), summed over classes, mean over rows."""
    total = 0.0
    for logits, probs in zip(student.tolist(), teacher_probabilities.tolist(), strict=True):
        powered = [max(p, PROB_FLOOR) ** (1 / temperature) for p in probs]
        target = [value / sum(powered) for value in powered]
        total += naive_kl(target, naive_softmax([z / temperature for z in logits]))
    return temperature**2 * total / len(student)


def naive_cross_entropy(student, labels, smoothing=0.0):
    total = 0.0
    for logits, label in zip(student.tolist(), labels.tolist(), strict=True):
        p = naive_softmax(logits)
        for c in range(len(p)):
            target = smoothing / len(p) + (1 - smoothing) * (c == label)
            total -= target * math.log(p[c])
    return total / len(student)


def naive_mse(student, teacher):
    total = 0.0
    for z_s, z_t in zip(student.numpy(), teacher.numpy(), strict=True):
        difference = (z_s - z_s.mean()) - (z_t - z_t.mean())
        total += np.sum(difference**2) / (2 * len(z_s))
    return total / len(student)


def naive_bucket(student, values, indices):
    total = 0.0
    for logits, q, listed in zip(student.tolist(), values.tolist(), indices.tolist(), strict=True):
        p = naive_softmax(logits)
        rest_q = 1 - sum(q)
        rest_p = sum(p[c] for c in range(len(p)) if c not in listed)
        total += sum(a * math.log(a / p[c]) for a, c in zip(q, listed, strict=True) if a > 0)
        total += rest_q * math.log(rest_q / rest_p) if rest_q > 1e-12 else 0.0
    return total / len(student)


def top(probs, k):
    values, indices = probs.topk(k, dim=1)
    return TopK(values, indices)


def loss_and_gradient(logits, answers, output, **settings):
    logits = logits.clone().requires_grad_()
    loss = distillation_loss(logits, answers, output, **settings)
    return loss.detach(), torch.autograd.grad(loss, logits)[0]


# ---- the soft term ---------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.0, 4.0, 10.0])
def test_kl_equals_its_definition(temperature):
    student, teacher = random_logits(0), random_logits(1)
    loss = distillation_loss(student, teacher, "logits", temperature=temperature)
    assert_close(float(loss), naive_kd(student, teacher.softmax(1), temperature))


def test_kl_by_hand():
    # Teacher (3/4, 1/4), student (1/2, 1/2): 3/4 log 3/2 + 1/4 log 1/2.
    teacher = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64)
    loss = softened_kl(torch.zeros_like(teacher), teacher, 1.0)
    assert_close(float(loss), 0.75 * math.log(1.5) + 0.25 * math.log(0.5))


@given(st.integers(0, 999), st.floats(-50, 50), st.floats(1, 20))
def test_kl_is_zero_for_shifted_logits_and_positive_otherwise(seed, shift, temperature):
    student, teacher = random_logits(seed), random_logits(seed + 1000)
    rows = shift * torch.arange(4, dtype=torch.float64)[:, None]
    assert_close(float(softened_kl(teacher + rows, teacher, temperature)), 0.0, atol=1e-9, rtol=0)
    loss = softened_kl(student, teacher, temperature)
    assert loss > 1e-6
    assert_close(softened_kl(student + rows, teacher - 2 * rows, temperature), loss)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_logits_probs_and_log_probs_give_equal_loss_and_gradient(temperature, loss):
    student, teacher = random_logits(2), random_logits(3)
    assert teacher.softmax(1).min() > PROB_FLOOR
    settings = {"temperature": temperature, "loss": loss, "alpha": 0.7}
    wanted = loss_and_gradient(student, teacher, "logits", **settings)
    for output, answers in (
        ("probs", teacher.softmax(1)),
        ("log_probs", teacher.log_softmax(1)),
    ):
        got = loss_and_gradient(student, answers, output, **settings)
        assert_close(got, wanted, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("loss", ["kl", "mse"])
def test_loss_stays_finite_where_a_probability_is_zero(loss):
    student = random_logits(4, rows=1, classes=3)
    probs = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    by_probs = distillation_loss(student, probs, "probs", loss=loss)
    assert torch.isfinite(by_probs)
    assert_close(distillation_loss(student, probs.log(), "log_probs", loss=loss), by_probs)
    if loss == "kl":
        assert_close(float(by_probs), naive_kd(student, probs, 4.0))


def test_mse_equals_its_definition():
    student, teacher = random_logits(5), random_logits(6)
    loss = distillation_loss(student, teacher, "logits", loss="mse")
    assert_close(float(loss), naive_mse(student, teacher))


def test_kl_becomes_mse_as_temperature_grows():
    student, teacher = random_logits(7), random_logits(8)
    limit = loss_and_gradient(student, teacher, "logits", loss="mse")
    centred = student - student.mean(1, keepdim=True) - teacher + teacher.mean(1, keepdim=True)
    assert_close(limit[1], centred / student.numel())
    errors = []
    for temperature in (1e1, 1e2, 1e3, 1e4):
        loss, gradient = loss_and_gradient(student, teacher, "logits", temperature=temperature)
        errors.append(float((gradient - limit[1]).abs().max()))
        assert abs(float(loss - limit[0])) < 10 * float(limit[0]) / temperature
    ratios = np.array(errors[:-1]) / np.array(errors[1:])
    assert np.all((ratios > 7) & (ratios < 13)), errors  # an error of order 1 / T


def test_squared_temperature_multiplies_only_the_soft_term():
    student, teacher, labels = random_logits(9), random_logits(10), torch.tensor([0, 1, 2, 3])
    loss = distillation_loss(student, teacher, "logits", labels=labels, temperature=4.0, alpha=0.3)
    soft, hard = naive_kd(student, teacher.softmax(1), 4.0), naive_cross_entropy(student, labels)
    assert_close(float(loss), 0.3 * soft + 0.7 * hard)


def test_without_labels_the_hard_term_takes_the_boxs_best_class():
    student, teacher = random_logits(11), random_logits(12)
    loss = distillation_loss(student, teacher, "logits", alpha=0.0, label_smoothing=0.2)
    assert_close(float(loss), naive_cross_entropy(student, teacher.argmax(1), 0.2))


# ---- top-k answers ---------------------------------------------------------------------------


@given(st.integers(0, 999), st.integers(1, 6))
def test_bucket_equals_its_definition_and_never_exceeds_the_whole(seed, k):
    student, probs = random_logits(seed), random_logits(seed + 1).softmax(1)
    listed = top(probs, k)
    bucket = float(distillation_loss(student, listed, "topk", topk="bucket"))
    assert_close(bucket, naive_bucket(student, *listed), atol=1e-9, rtol=1e-9)
    whole = float(softened_kl(student, probs.log(), 1.0))
    assert bucket <= whole + 1e-9
    if k >= 5:
        assert_close(bucket, whole, atol=1e-9, rtol=1e-9)


def test_bucket_has_a_gradient_where_the_student_gives_the_rest_nothing():
    student = torch.tensor([[60.0, 0.0, 0.0]], requires_grad=True)
    loss = bucket_kl(student, TopK(torch.tensor([[0.5]]), torch.tensor([[0]])))
    gradient = torch.autograd.grad(loss, student)[0]
    assert torch.isfinite(loss)
    assert_close(gradient, torch.tensor([[0.5, -0.25, -0.25]]))


@pytest.mark.parametrize("mode", ["uniform", "renormalize"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_all_classes_listed_is_the_same_as_probabilities(mode, temperature):
    student, probs = random_logits(13), random_logits(14).softmax(1)
    settings = {"temperature": temperature, "alpha": 0.6}
    got = loss_and_gradient(student, top(probs, 6), "topk", topk=mode, **settings)
    assert_close(got, loss_and_gradient(student, probs, "probs", **settings), rtol=1e-9, atol=1e-9)


def test_topk_modes_by_hand():
    listed = TopK(torch.tensor([[0.5, 0.2]], dtype=torch.float64), torch.tensor([[3, 1]]))
    uniform = teacher_logits(listed, "topk", 5, topk="uniform").exp()
    assert_close(uniform, torch.tensor([[0.1, 0.2, 0.1, 0.5, 0.1]], dtype=torch.float64))
    scaled = teacher_logits(listed, "topk", 5, topk="renormalize").exp()
    wanted = [[PROB_FLOOR, 2 / 7, PROB_FLOOR, 5 / 7, PROB_FLOOR]]
    assert_close(scaled, torch.tensor(wanted, dtype=torch.float64))


def test_modes_agree_where_the_service_has_renormalised():
    student = random_logits(15, rows=1, classes=4)
    listed = TopK(torch.tensor([[0.75, 0.25]], dtype=torch.float64), torch.tensor([[2, 0]]))
    losses = [
        float(distillation_loss(student, listed, "topk", topk=mode, temperature=1.0))
        for mode in ("uniform", "renormalize", "bucket")
    ]
    assert_close(losses, [losses[0]] * 3, rtol=1e-4, atol=0)


def test_best_class_of_every_kind():
    probs = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]])
    unordered = TopK(torch.tensor([[0.2, 0.7], [0.5, 0.3]]), torch.tensor([[2, 1], [0, 2]]))
    for answers in (probs, probs.log(), unordered, torch.tensor([1, 0])):
        assert best_class(answers).tolist() == [1, 0]


# ---- labels ----------------------------------------------------------------------------------


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_labels_give_cross_entropy_whatever_the_temperature(smoothing):
    student, labels = random_logits(16), torch.tensor([5, 0, 2, 2])
    wanted = naive_cross_entropy(student, labels, smoothing)
    for temperature in (1.0, 4.0, 50.0):
        for alpha in (1.0, 0.9):
            loss = distillation_loss(
                student,
                labels,
                "labels",
                temperature=temperature,
                alpha=alpha,
                label_smoothing=smoothing,
            )
            assert_close(float(loss), wanted)


# ---- precision and errors --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_loss_is_computed_in_float32_at_least(dtype):
    student = random_logits(17).to(dtype)
    loss = distillation_loss(student, random_logits(18), "logits")
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close(
        float(loss),
        float(distillation_loss(student.double(), random_logits(18), "logits")),
        rtol=1e-5,
        atol=0,
    )


@pytest.mark.parametrize(
    ("output", "settings", "message"),
    [
        ("logits", {"loss": "l1"}, "loss is one of 'kl', 'mse', got 'l1'"),
        ("topk", {"topk": "even"}, "topk is one of 'uniform', 'bucket', 'renormalize', got 'even'"),
        (
            "labels",
            {"loss": "mse"},
            "loss='mse' compares logits of all classes, which output='labels' does not give; "
            "choose loss='kl'",
        ),
        (
            "topk",
            {"loss": "mse", "topk": "bucket"},
            "loss='mse' compares logits of all classes, which output='topk' with topk='bucket' "
            "does not give; choose loss='kl'",
        ),
    ],
)
def test_settings_that_do_not_exist_are_named(output, settings, message, as_users_call):
    with pytest.raises(InputError) as error:
        check_loss(output, **{"loss": "kl", "topk": "uniform", **settings})
    assert str(error.value) == message


def test_mse_by_hand():
    # Centred (-1, 1) and (0, 0): (1 + 1) / (2 · 2).
    assert float(centred_mse(torch.tensor([[1.0, 3.0]]), torch.tensor([[5.0, 5.0]]))) == 0.5
