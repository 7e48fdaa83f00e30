import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_blackbox import BlackBox
from captum_blackbox.black_box import TopK
from captum_blackbox.black_box.outputs import checked_answers, probabilities
from captum_blackbox.errors import OutputError

CLASSES = 4


def naive_softmax(row):
    powers = [np.exp(float(z) - max(map(float, row))) for z in row]
    return [each / sum(powers) for each in powers]


def naive_probabilities(answers, output, classes):
    """Row by row, number by number, in double precision."""
    if output == "labels":
        return [[float(c == label) for c in range(classes)] for label in answers.tolist()]
    if output == "topk":
        rows = []
        for values, indices in zip(answers[0].tolist(), answers[1].tolist(), strict=True):
            listed = dict(zip(indices, values, strict=True))
            rows.append([listed.get(c, 0.0) for c in range(classes)])
        return rows
    if output == "logits":
        return [naive_softmax(row) for row in answers.tolist()]
    if output == "log_probs":
        answers = answers.double().exp()
    return [[p / sum(row) for p in row] for row in answers.tolist()]


def answers_of_kind(output, rows, dtype=torch.float32, seed=0):
    logits = 3 * torch.randn(rows, CLASSES, generator=torch.Generator().manual_seed(seed))
    logits = logits.double()
    if output == "labels":
        return logits.argmax(1)
    if output == "topk":
        values, indices = logits.softmax(1).topk(2)
        return values.to(dtype), indices
    scores = {"logits": logits, "probs": logits.softmax(1), "log_probs": logits.log_softmax(1)}
    return scores[output].to(dtype)


@pytest.mark.parametrize("output", ["logits", "probs", "log_probs", "topk", "labels"])
@given(rows=st.integers(1, 6), seed=st.integers(0, 2**31))
def test_every_kind_is_read_as_its_definition_says(output, rows, seed):
    answers = answers_of_kind(output, rows, torch.float64, seed)
    checked = checked_answers(answers, output, rows, CLASSES)
    expected = torch.tensor(naive_probabilities(answers, output, CLASSES), dtype=torch.float64)
    torch.testing.assert_close(probabilities(checked, output, CLASSES).double(), expected)


def test_by_hand():
    half = torch.tensor([[0.5, 0.25, 0.25]])
    assert torch.equal(probabilities(half, "probs", 3), half)
    torch.testing.assert_close(probabilities(half.log(), "log_probs", 3), half)
    torch.testing.assert_close(probabilities(half.log() + 7, "logits", 3), half)
    top = TopK(torch.tensor([[0.5, 0.25]]), torch.tensor([[2, 0]]))
    assert torch.equal(probabilities(top, "topk", 3), torch.tensor([[0.25, 0.0, 0.5]]))
    assert torch.equal(
        probabilities(torch.tensor([1]), "labels", 3), torch.tensor([[0.0, 1.0, 0.0]])
    )


@pytest.mark.parametrize("output", ["logits", "probs", "log_probs", "topk"])
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str
)
def test_answers_keep_their_dtype_and_probabilities_have_float32_or_more(output, dtype, device):
    answers = answers_of_kind(output, 5, dtype)
    moved = tuple(each.to(device) for each in answers) if output == "topk" else answers.to(device)
    box = BlackBox(lambda x: moved, output=output, num_classes=CLASSES)
    images = torch.zeros(5, 1, 1, 1)
    raw = box.answers(images)
    kept = raw.values if output == "topk" else raw
    assert kept.dtype == dtype
    read = box(images)
    assert read.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    expected = torch.tensor(naive_probabilities(answers, output, CLASSES), dtype=read.dtype)
    torch.testing.assert_close(read, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("output", ["probs", "log_probs"])
@given(classes=st.integers(2, 1000), scale=st.floats(0, 8), seed=st.integers(0, 2**31))
def test_probabilities_that_were_only_rounded_are_accepted(output, dtype, classes, scale, seed):
    logits = scale * torch.randn(3, classes, generator=torch.Generator().manual_seed(seed))
    exact = logits.softmax(1) if output == "probs" else logits.log_softmax(1)
    checked_answers(exact.to(dtype), output, 3, classes)


def test_sums_within_the_tolerance_are_normalised():
    read = probabilities(torch.tensor([[0.5, 0.5005]]), "probs", 2)
    torch.testing.assert_close(read.sum(1), torch.ones(1))


def test_answers_may_be_arrays_lists_or_tensors_that_require_grad():
    rows = [[1.0, -2.0], [0.0, 3.0]]
    read_only = np.array(rows)
    read_only.flags.writeable = False
    for raw in (rows, read_only, torch.tensor(rows, requires_grad=True)):
        checked = checked_answers(raw, "logits", 2, 2)
        assert not checked.requires_grad
        assert torch.equal(checked.double(), torch.tensor(rows).double())
    assert checked_answers(np.array([1, 0], np.uint8), "labels", 2, 2).tolist() == [1, 0]
    top = checked_answers([np.array([[0.5]]), np.array([[1]], np.int32)], "topk", 1, 2)
    assert top.values.tolist() == [[0.5]]
    assert top.indices.tolist() == [[1]]
    assert checked_answers([[0, 7]], "logits", 1, 2).dtype == torch.float32


def test_whole_numbers_and_minus_infinity_are_probabilities():
    checked_answers(torch.tensor([[0, 1]]), "probs", 1, 2)
    log_probs = torch.tensor([[0.0, -torch.inf]])
    assert probabilities(
        checked_answers(log_probs, "log_probs", 1, 2), "log_probs", 2
    ).tolist() == [[1.0, 0.0]]


def test_huge_logits_whose_sum_overflows_are_accepted():
    logits = torch.full((1, 4), 3e38)
    assert probabilities(checked_answers(logits, "logits", 1, 4), "logits", 4).tolist() == [
        [0.25] * 4
    ]


def test_a_function_may_use_its_memory_again():
    memory = torch.zeros(1, 2)

    def fn(x):
        return memory.copy_(torch.stack([x.sum((1, 2, 3)), -x.sum((1, 2, 3))], 1))

    images = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    for cache in (None, ":memory:"):
        answers = BlackBox(fn, output="logits", batch_size=1, cache=cache).answers(images)
        assert answers.tolist() == [[1.0, -1.0], [2.0, -2.0]]


NAN, INF = float("nan"), float("inf")
WRONG = {
    "no tensor": (
        "logits",
        lambda: None,
        "the black box returned a NoneType that is no tensor: can't convert np.ndarray of type "
        "numpy.object_. ",
    ),
    "one number": (
        "logits",
        lambda: 1.0,
        "output='logits' means real numbers of shape (N, classes); the black box returned "
        "torch.float64 of shape ()",
    ),
    "no classes": (
        "probs",
        lambda: torch.zeros(2, 0),
        "output='probs' means real numbers of shape (N, classes); the black box returned "
        "torch.float32 of shape (2, 0)",
    ),
    "a map per class": (
        "log_probs",
        lambda: torch.zeros(2, 3, 1, 1),
        "output='log_probs' means real numbers of shape (N, classes); the black box returned "
        "torch.float32 of shape (2, 3, 1, 1)",
    ),
    "complex": (
        "logits",
        lambda: torch.zeros(2, 3, dtype=torch.complex64),
        "output='logits' means real numbers of shape (N, classes); the black box returned "
        "torch.complex64 of shape (2, 3)",
    ),
    "rows missing": (
        "logits",
        lambda: torch.zeros(1, 3),
        "the black box answered 1 rows to 2 images; it must answer one row per image",
    ),
    "classes missing": (
        "logits",
        lambda: torch.zeros(2, 2),
        "expected 3 classes; the black box answered 2",
    ),
    "logits with NaN": (
        "logits",
        lambda: torch.tensor([[0.0, 1.0, 2.0], [0.0, NAN, 1.0]]),
        "the black box answered NaN for image 1 of the batch",
    ),
    "infinite logit": (
        "logits",
        lambda: torch.tensor([[0.0, 1.0, 2.0], [0.0, -INF, 1.0]]),
        "the black box answered an infinite logit",
    ),
    "logits that are probabilities": (
        "logits",
        lambda: torch.tensor([[0.2, 0.3, 0.5], [0.0, 1.0, 0.0]]),
        "output='logits' was declared, but every row is non-negative and sums to 1: these are "
        "probabilities; declare output='probs'",
    ),
    "probs that are logits": (
        "probs",
        lambda: torch.tensor([[0.5, 0.5, 0.0], [2.5, -1.25, -0.25]]),
        "output='probs' was declared, but the black box answered -1.25; probabilities are not "
        "negative (logits? declare output='logits')",
    ),
    "probs unnormalised": (
        "probs",
        lambda: torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.002]]),
        "output='probs' was declared, but row 1 sums to 1.002, not to 1 ± 0.001",
    ),
    "probs with NaN": (
        "probs",
        lambda: torch.tensor([[0.5, 0.5, 0.0], [0.5, NAN, 0.5]]),
        "the black box answered NaN for image 1 of the batch",
    ),
    "infinite probs": (
        "probs",
        lambda: torch.tensor([[0.5, 0.5, 0.0], [0.5, INF, 0.5]]),
        "output='probs' was declared, but row 1 sums to inf, not to 1 ± 0.001",
    ),
    "log_probs that are logits": (
        "log_probs",
        lambda: torch.tensor([[0.0, 0.0, 0.0], [0.0, -INF, -INF]]),
        "output='log_probs' was declared, but row 0 has probabilities that sum to 3, not to "
        "1 ± 0.001",
    ),
    "log_probs with NaN": (
        "log_probs",
        lambda: torch.full((2, 3), NAN),
        "the black box answered NaN for image 0, 1 of the batch",
    ),
    "topk no pair": (
        "topk",
        lambda: torch.zeros(2, 3),
        "output='topk' means a pair (values, indices); the black box returned a Tensor",
    ),
    "topk shapes": (
        "topk",
        lambda: (torch.zeros(2, 2), torch.zeros(2, 1).long()),
        "output='topk' means values (N, k) and integer indices (N, k); the black box returned "
        "torch.float32 of shape (2, 2) and torch.int64 of shape (2, 1)",
    ),
    "topk float indices": (
        "topk",
        lambda: (torch.zeros(2, 2), torch.zeros(2, 2)),
        "output='topk' means values (N, k) and integer indices (N, k); the black box returned "
        "torch.float32 of shape (2, 2) and torch.float32 of shape (2, 2)",
    ),
    "topk with NaN": (
        "topk",
        lambda: (torch.tensor([[0.5], [NAN]]), torch.tensor([[0], [1]])),
        "the black box answered NaN among its top-k probabilities",
    ),
    "topk of logits": (
        "topk",
        lambda: (torch.tensor([[2.0, 0.5], [0.5, -1.0]]), torch.tensor([[0, 1], [1, 2]])),
        "output='topk' means probabilities: not negative, and at most 1 in sum; the black box "
        "answered values from -1 to 2, with a row sum of 2.5",
    ),
    "topk class too large": (
        "topk",
        lambda: (torch.tensor([[0.5], [0.5]]), torch.tensor([[0], [3]])),
        "the black box answered class 3; with num_classes=3 the classes are 0 … 2",
    ),
    "topk class negative": (
        "topk",
        lambda: (torch.tensor([[0.5], [0.5]]), torch.tensor([[-1], [2]])),
        "the black box answered class -1; with num_classes=3 the classes are 0 … 2",
    ),
    "topk class twice": (
        "topk",
        lambda: (torch.tensor([[0.5, 0.1]] * 2), torch.tensor([[0, 1], [2, 2]])),
        "the black box listed the same class twice for one image",
    ),
    "labels as scores": (
        "labels",
        lambda: torch.zeros(2, 3),
        "output='labels' means one integer per image, shape (N,); the black box returned "
        "torch.float32 of shape (2, 3)",
    ),
    "labels as floats": (
        "labels",
        lambda: torch.zeros(2),
        "output='labels' means one integer per image, shape (N,); the black box returned "
        "torch.float32 of shape (2,)",
    ),
    "labels too large": (
        "labels",
        lambda: torch.tensor([0, 3]),
        "the black box answered class 3; with num_classes=3 the classes are 0 … 2",
    ),
    "labels missing": (
        "labels",
        lambda: torch.tensor([0]),
        "the black box answered 1 rows to 2 images; it must answer one row per image",
    ),
}


@pytest.mark.parametrize("cache", [None, ":memory:"])
@pytest.mark.parametrize(("output", "answer", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_answer_says_what_is_wrong_and_was_paid_for(output, answer, message, cache):
    box = BlackBox(lambda x: answer(), output=output, num_classes=3, cache=cache)
    with pytest.raises(OutputError) as raised:
        box(torch.arange(2.0).view(2, 1, 1, 1))
    if message.endswith(" "):  # torch's own words follow
        assert str(raised.value).startswith(message)
    else:
        assert str(raised.value) == message
    assert box.queries == 2


def test_many_rows_with_nan_are_not_all_listed():
    with pytest.raises(OutputError, match="NaN for image 0, 1, 2, 3, 4, … of the batch"):
        checked_answers(torch.full((9, 2), NAN), "logits", 9, 2)


def test_one_logit_is_no_probability():
    assert checked_answers(torch.ones(2, 1), "logits", 2, 1).tolist() == [[1.0], [1.0]]
