import functools

import numpy as np
import pytest
import torch
from counted import Recorder, numbered
from torch import nn

from captum_blackbox import BlackBox
from captum_blackbox.errors import InputError, OutputError


def test_a_numpy_function_gets_and_returns_arrays(device):
    seen = []

    def fn(x):
        seen.append((type(x), x.dtype))
        x += 0  # it may write to it
        return x.mean((2, 3))

    box = BlackBox.from_numpy(fn, output="logits", batch_size=2)
    images = torch.rand(3, 4, 2, 2, device=device)
    torch.testing.assert_close(box(images), images.mean((2, 3)).softmax(1))
    box(images.bfloat16())
    assert {kind for kind, _ in seen} == {np.ndarray}
    assert [str(dtype) for _, dtype in seen] == ["float32"] * 4
    assert repr(box) == "BlackBox(fn, output='logits', queries=6)"


def fitted(kind, labels, **settings):
    images = np.random.default_rng(0).normal(size=(40, 8))
    return kind(**settings).fit(images, np.asarray(labels)[(images[:, 0] > 0).astype(int)]), images


@pytest.mark.parametrize("labels", [["cat", "dog"], [7, 3], [0, 1], [True, False]], ids=str)
def test_classes_of_scikit_learn_are_numbered_by_their_place(labels):
    from sklearn.tree import DecisionTreeClassifier

    tree, rows = fitted(DecisionTreeClassifier, labels, random_state=0)
    images = torch.from_numpy(rows[:6]).view(6, 2, 2, 2)
    expected = torch.tensor([list(tree.classes_).index(each) for each in tree.predict(rows[:6])])
    box = BlackBox.from_sklearn(tree, output="labels", batch_size=4)
    assert torch.equal(box.answers(images), expected)
    probs = BlackBox.from_sklearn(tree)(images)
    torch.testing.assert_close(probs, torch.from_numpy(tree.predict_proba(rows[:6])))
    assert repr(box) == "BlackBox(DecisionTreeClassifier, output='labels', queries=6)"
    assert box.num_classes == 2


def test_a_pipeline_of_scikit_learn_is_a_classifier():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    pipeline, rows = fitted(
        lambda: make_pipeline(StandardScaler(), LogisticRegression()), ["a", "b"]
    )
    probs = BlackBox.from_sklearn(pipeline)(torch.from_numpy(rows).view(40, 2, 2, 2))
    torch.testing.assert_close(probs, torch.from_numpy(pipeline.predict_proba(rows)))


def test_estimators_that_cannot_be_asked_say_why(as_users_call):
    from sklearn.linear_model import LinearRegression
    from sklearn.svm import LinearSVC
    from sklearn.tree import DecisionTreeClassifier

    svc, _ = fitted(LinearSVC, [0, 1])
    tree = DecisionTreeClassifier().fit(np.zeros((2, 8)), [[0, 1], [1, 0]])
    cases = [
        (svc, "logits", "a scikit-learn estimator gives output='probs' or 'labels', got 'logits'"),
        (
            svc,
            "probs",
            "LinearSVC has no predict_proba; choose output='labels' for an estimator that only "
            "predicts classes",
        ),
        (
            DecisionTreeClassifier(),
            "probs",
            "DecisionTreeClassifier has no classes_: fit it first; it must be a classifier of "
            "scikit-learn",
        ),
        (
            LinearRegression().fit([[0.0]], [0.0]),
            "labels",
            "LinearRegression has no classes_: fit it first; it must be a classifier of "
            "scikit-learn",
        ),
        (
            tree,
            "labels",
            "DecisionTreeClassifier predicts several things at once; wrap one of its estimators",
        ),
    ]
    for estimator, output, message in cases:
        with pytest.raises(InputError) as raised:
            BlackBox.from_sklearn(estimator, output=output)
        assert str(raised.value) == message


def test_a_label_that_was_never_learnt_is_refused():
    class Surprising:
        classes_ = np.array(["cat", "dog"])

        def predict(self, rows):
            return np.array(["cow"] * len(rows))

    box = BlackBox.from_sklearn(Surprising(), output="labels")
    with pytest.raises(OutputError, match=r"Surprising predicts .*cow.*not among its classes_"):
        box(numbered(1))


def test_what_is_wrapped_has_a_name(as_users_call):
    assert repr(BlackBox(nn.Linear(1, 1), output="logits")).startswith("BlackBox(Linear, ")
    partial = functools.partial(Recorder.naive)
    assert repr(BlackBox(partial, output="logits")).startswith("BlackBox(partial, ")
    with pytest.raises(InputError, match=r"^a black box wraps something callable, got int$"):
        BlackBox.from_numpy(3, output="logits")
