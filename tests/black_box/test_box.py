import copy

import pytest
import torch
from counted import Recorder, numbered
from hypothesis import given
from hypothesis import strategies as st
from networks import Raises, State, TwoConvs

from captum_blackbox import BlackBox
from captum_blackbox.black_box import as_black_box
from captum_blackbox.errors import (
    BlackBoxError,
    OutputError,
    QueryBudgetError,
)

pictures = st.lists(st.integers(-3, 3), min_size=1, max_size=12).map(lambda n: numbered(*n))


@given(images=pictures, size=st.integers(1, 13))
def test_batches_do_not_matter_and_the_count_is_exact(images, size):
    fn = Recorder()
    box = BlackBox(fn, output="logits", batch_size=size)
    assert torch.equal(box.answers(images), fn.naive(images))
    assert torch.equal(box(images), fn.naive(images).softmax(1))
    assert [len(batch) for batch in fn.batches[: len(fn.batches) // 2]] == [
        len(part) for part in images.split(size)
    ]
    assert box.queries == fn.asked == 2 * len(images)


@given(calls=st.lists(pictures, min_size=1, max_size=4), size=st.integers(1, 5))
def test_a_cache_changes_no_bit_and_asks_each_image_once(calls, size):
    fn = Recorder()
    box = BlackBox(fn, output="logits", batch_size=size, cache=":memory:")
    for images in calls:
        assert torch.equal(box.answers(images), fn.naive(images))
        assert torch.equal(box(images), fn.naive(images).softmax(1))
    distinct = {float(image[0, 0, 0]) for images in calls for image in images}
    assert box.queries == fn.asked == len(distinct)
    assert len({float(image[0, 0, 0]) for batch in fn.batches for image in batch}) == fn.asked


def test_duplicates_are_counted_without_a_cache_and_asked_once_with_one():
    images = numbered(1, 2, 1, 1)
    for cache, asked in ((None, 4), (":memory:", 2)):
        fn = Recorder()
        box = BlackBox(fn, output="logits", cache=cache)
        assert torch.equal(box.answers(images), fn.naive(images))
        assert box.queries == fn.asked == asked


@pytest.mark.parametrize("cache", [None, ":memory:"])
@given(before=st.integers(0, 5), more=st.integers(1, 8), budget=st.integers(0, 10))
def test_a_budget_is_never_exceeded_and_refuses_before_anything_is_asked(
    cache, before, more, budget
):
    fn = Recorder()
    box = BlackBox(fn, output="logits", batch_size=2, cache=cache, query_budget=budget)
    before = min(before, budget)
    if before:
        box(numbered(*range(before)))
    images = numbered(*range(100, 100 + more))
    if before + more <= budget:
        box(images)
        assert fn.asked == box.queries == before + more
        return
    with pytest.raises(QueryBudgetError) as raised:
        box(images)
    assert str(raised.value) == (
        f"{more} more images would exceed the budget of {budget}: {before} were asked; "
        "these were not"
    )
    assert fn.asked == box.queries == before


def test_known_images_are_free_when_the_budget_is_spent():
    fn = Recorder()
    box = BlackBox(fn, output="logits", batch_size=2, cache=":memory:", query_budget=3)
    images = numbered(1, 2, 3)
    expected = box(images)
    assert torch.equal(box(images.repeat(2, 1, 1, 1)), expected.repeat(2, 1))
    with pytest.raises(QueryBudgetError, match=r"^1 more images would exceed the budget of 3"):
        box(numbered(1, 2, 3, 4, 4))
    assert box.queries == fn.asked == 3


def test_the_key_is_the_content_of_what_the_function_sees():
    fn = Recorder()
    box = BlackBox(fn, output="logits", cache=":memory:")
    images = torch.arange(16.0).view(2, 2, 2, 2)
    box(images)
    box(images.to(memory_format=torch.channels_last))  # the same values
    box(images.repeat(1, 1, 1, 2)[..., :2])  # a view
    assert box.queries == 2
    box(images.double())  # another dtype is another image
    assert box.queries == 4
    box(images.view(2, 1, 2, 4))  # and so is another shape
    assert box.queries == 6
    box(images.half())
    box(images.half().view(torch.bfloat16))  # the same bytes
    assert box.queries == 10
    box(-0.0 * images[:1])
    box(0.0 * images[:1])  # zeros that compare equal, but divide differently
    assert box.queries == 12


def test_images_are_known_by_what_the_preprocessing_makes_of_them():
    fn = Recorder()
    box = BlackBox(fn, output="logits", cache=":memory:", preprocess=lambda x: x.abs())
    assert torch.equal(box.answers(numbered(1, -1, 2)), fn.naive(numbered(1, 1, 2)))
    assert box.queries == fn.asked == 2


def test_a_model_is_left_as_it_was():
    model = TwoConvs(inplace=True).train()
    model.norm.eval()
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    before = State(model)
    images = torch.rand(3, 3, 8, 8, requires_grad=True)
    kept = images.detach().clone()
    box = BlackBox(model, output="logits", batch_size=2)
    scores = box(images)
    assert State(model).differences(before) == []
    assert torch.equal(images, kept)
    assert images.grad is None
    assert not scores.requires_grad
    expected = copy.deepcopy(model).eval()(images).softmax(1)
    torch.testing.assert_close(scores, expected)
    assert box.num_classes == 4


def test_a_model_that_raises_is_left_as_it_was():
    model = Raises().train()
    before = State(model)
    with pytest.raises(BlackBoxError, match="RuntimeError on images 0 to 0 of 1: a layer broke; "):
        BlackBox(model, output="logits")(torch.rand(1, 3, 8, 8))
    assert State(model).differences(before) == []


def test_the_number_of_classes_is_read_from_the_first_answer_and_holds():
    answers = iter([torch.zeros(1, 3), torch.zeros(1, 4)])
    box = BlackBox(lambda x: next(answers), output="logits", batch_size=1)
    assert box.num_classes is None
    with pytest.raises(OutputError, match=r"^expected 3 classes; the black box answered 4$"):
        box(numbered(1, 2))
    assert box.num_classes == 3
    assert box.queries == 2


@pytest.mark.parametrize("cache", [None, ":memory:"])
def test_a_list_that_changes_its_length_is_refused(cache):
    def fn(x):
        k = 2 if float(x[0, 0, 0, 0]) == 1 else 1
        return torch.full((len(x), k), 0.25), torch.arange(k).repeat(len(x), 1)

    box = BlackBox(fn, output="topk", num_classes=3, batch_size=1, cache=cache)
    message = (
        "the black box gives answers of shape (1,) to some images and of shape (2,) to others; it "
        "must list the same number of classes for each"
    )
    with pytest.raises(OutputError) as raised:
        box(numbered(1, 2))
    assert str(raised.value) == message
    if cache:  # also where both are known
        box.batch_size = 2
        with pytest.raises(OutputError) as raised:
            box(numbered(1, 2))
        assert str(raised.value) == message
        assert box.queries == 2


def test_a_function_that_raises_in_the_middle_loses_nothing():
    fn = Recorder()
    broken = True

    def moody(x):
        if broken and float(x.max()) >= 5:
            raise ConnectionError("the service is down")
        return fn(x)

    images = numbered(*range(1, 9))
    lost = BlackBox(moody, output="logits", batch_size=3)
    with pytest.raises(BlackBoxError) as raised:
        lost(images)
    assert str(raised.value) == (
        "the black box raised ConnectionError on images 3 to 5 of 8: the service is down; answers "
        "are not kept without a cache"
    )
    assert isinstance(raised.value.__cause__, ConnectionError)
    assert lost.queries == 3
    fn.batches.clear()
    box = BlackBox(moody, output="logits", batch_size=3, cache=":memory:")
    with pytest.raises(BlackBoxError) as raised:
        box(images)
    assert str(raised.value) == (
        "the black box raised ConnectionError on images 3 to 5 of 8: the service is down; answers "
        "so far are kept in ':memory:'"
    )
    assert box.queries == 3
    assert torch.equal(box.answers(images[:3]), fn.naive(images[:3]))
    broken = False
    assert torch.equal(box.answers(images), fn.naive(images))
    assert box.queries == fn.asked == 8


def test_the_last_batch_is_named_by_its_own_images():
    def fn(x):
        if len(x) == 2:
            raise ValueError("no")
        return Recorder.naive(x)

    with pytest.raises(BlackBoxError, match="ValueError on images 3 to 4 of 5: no;"):
        BlackBox(fn, output="logits", batch_size=3)(numbered(1, 2, 3, 4, 5))


@pytest.mark.parametrize("cache", [None, ":memory:"])
def test_an_interrupted_question_is_not_counted_and_the_box_goes_on(cache):
    interrupted = True

    def fn(x):
        if interrupted:
            raise KeyboardInterrupt
        return Recorder.naive(x)

    box = BlackBox(fn, output="logits", cache=cache)
    with pytest.raises(KeyboardInterrupt):
        box(numbered(1))
    assert box.queries == 0
    interrupted = False
    box(numbered(1))
    assert box.queries == 1


def test_unusable_answers_are_counted_and_not_remembered():
    good = False

    def fn(x):
        return Recorder.naive(x) if good else torch.full((len(x), 3), torch.nan)

    box = BlackBox(fn, output="logits", cache=":memory:")
    with pytest.raises(OutputError, match="NaN for image 0, 1 of the batch"):
        box(numbered(1, 2))
    assert box.queries == 2
    good = True
    assert torch.equal(box.answers(numbered(1, 2)), Recorder.naive(numbered(1, 2)))
    assert box.queries == 4


def test_a_box_inside_a_box_keeps_its_own_error():
    inner = BlackBox(Recorder(), output="logits", query_budget=1)
    outer = BlackBox(inner, output="probs")
    with pytest.raises(QueryBudgetError, match=r"^2 more images would exceed the budget of 1: 0"):
        outer(numbered(1, 2))


def test_a_box_stays_and_a_model_is_wrapped():
    box = BlackBox(Recorder(), output="logits")
    assert as_black_box(box, "probs") is box
    assert as_black_box(Recorder(), "probs").output == "probs"


@pytest.mark.parametrize("cache", [None, ":memory:"])
def test_a_copy_counts_for_itself_and_knows_what_was_known(cache):
    box = BlackBox(Recorder(), output="logits", cache=cache)
    box(numbered(1))
    copied = copy.deepcopy(box)
    assert torch.equal(copied.answers(numbered(1, 2)), Recorder.naive(numbered(1, 2)))
    assert box.queries == 1
    assert copied.queries == (3 if cache is None else 2)
