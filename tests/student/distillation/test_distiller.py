"""A student learns what a box says, and nothing else about it changes."""

import json
import random
import re

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from networks import State, TwoConvs
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler

from captum_blackbox.black_box import BlackBox
from captum_blackbox.errors import (
    BlackBoxError,
    ExplanationWarning,
    InputError,
    OutputError,
    QueryBudgetError,
    ShapeError,
    TrainingError,
)
from captum_blackbox.student.distillation.batches import Batches
from captum_blackbox.student.distillation.distiller import distill
from captum_blackbox.student.distillation.evaluation import evaluate
from captum_blackbox.student.distillation.report import DistillationReport
from captum_blackbox.student.distillation.transfer_set import TransferSet
from captum_blackbox.student.networks import SmallCNN, student_network


def rand(*shape, seed=0, dtype=torch.float32):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def pictures(count, seed=0):
    """Noise, in a colour of its own for each."""
    return rand(count, 3, 6, 6, seed=seed) / 2 + rand(count, 3, 1, 1, seed=seed + 1)


def says(images):
    """Three classes: the mean of each channel, sharpened."""
    return 9 * images.mean((2, 3))


def small(classes=3, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 16, classes))


def pooled():
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 3))


IMAGES = pictures(40)
QUICK = {
    "epochs": 40,
    "batch_size": 40,
    "validation": pictures(50, seed=7),
    "optimizer": lambda each: torch.optim.Adam(each, lr=0.5),
}


def run(box, student, data=IMAGES, **settings):
    settings = {"epochs": 2, "batch_size": 8, "min_fidelity": 0.0, **settings}
    return distill(box, student, data, show_progress=False, **settings)


def logits_box(**settings):
    return BlackBox(says, output="logits", **settings)


# ---- what is learned -------------------------------------------------------------------------


def naive_centred(weight, bias):
    return weight - weight.mean(0, keepdim=True), bias - bias.mean()


@pytest.mark.parametrize(("loss", "tolerance"), [("mse", 1e-6), ("kl", 1e-2)])
def test_a_linear_box_is_recovered_up_to_what_a_softmax_cannot_see(loss, tolerance):
    """T05: the minimiser is the teacher, up to one vector added to all classes."""
    torch.manual_seed(1)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(6, 4)).double()
    student = nn.Sequential(nn.Flatten(), nn.Linear(6, 4)).double()
    images = rand(60, 1, 2, 3, dtype=torch.float64) * 4 - 2

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=3.0, momentum=0.4)

    report = run(
        BlackBox(teacher, output="logits"),
        student,
        images,
        epochs=60,
        batch_size=60,
        loss=loss,
        temperature=2.0,
        optimizer=sgd,
        validation=images,
    )
    mine = naive_centred(student[1].weight.detach(), student[1].bias.detach())
    wanted = naive_centred(teacher[1].weight.detach(), teacher[1].bias.detach())
    for ours, theirs in zip(mine, wanted, strict=True):
        assert (ours - theirs).norm() / theirs.norm() < tolerance
    assert report.agreement == 1.0
    assert report.r2 == pytest.approx(1.0, abs=1e-3)


def test_one_step_is_the_gradient_of_the_loss_on_what_the_box_saw():
    student, reference, seen = small(), small(), []

    def watched(images):
        seen.append(images.clone())
        return says(images)

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.5)

    run(BlackBox(watched, output="logits"), student, epochs=1, batch_size=40, optimizer=sgd)
    assert sorted(seen[0].flatten(1).sum(1).tolist()) == sorted(IMAGES.flatten(1).sum(1).tolist())
    teacher = (says(seen[0]) / 4).softmax(1)
    student_log = (reference(seen[0]) / 4).log_softmax(1)
    loss = 16 * (teacher * (teacher.log() - student_log)).sum(1).mean()
    loss.backward()
    for mine, other in zip(student.parameters(), reference.parameters(), strict=True):
        assert_close(mine.detach(), (other - 0.5 * other.grad).detach(), rtol=1e-5, atol=1e-6)


def test_logits_probs_and_log_probs_train_the_same_student():
    students = []
    for output, fn in (
        ("logits", says),
        ("probs", lambda x: says(x).softmax(1)),
        ("log_probs", lambda x: says(x).log_softmax(1)),
    ):
        student = small().double()
        run(BlackBox(fn, output=output), student, IMAGES.double())
        students.append(student.state_dict())
    assert_close(students[1], students[0], rtol=1e-8, atol=1e-9)
    assert_close(students[2], students[0], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("mode", ["uniform", "bucket", "renormalize"])
def test_topk_answers_teach(mode):
    def best_two(images):
        return tuple(says(images).softmax(1).topk(2))

    box = BlackBox(best_two, output="topk", num_classes=3)
    report = run(box, pooled(), topk=mode, temperature=1.0, **QUICK)
    assert report.agreement > 0.85
    assert report.r2 is None
    assert report.kl < report.validation_kl[0]


def test_labels_teach():
    box = BlackBox(lambda x: says(x).argmax(1), output="labels", num_classes=3)
    report = run(box, pooled(), **QUICK)
    assert report.agreement > 0.85
    assert report.r2 is None


def test_labels_of_the_data_take_a_tenth_of_the_loss():
    labels = torch.arange(40) % 3
    pairs = TensorDataset(IMAGES, labels)

    def trained(data, **settings):
        student = small()
        run(logits_box(), student, data, **settings)
        return torch.cat([each.detach().flatten() for each in student.parameters()])

    default, ignored = trained(pairs), trained(pairs, alpha=1.0)
    assert torch.equal(default, trained(pairs, alpha=0.9))
    assert torch.equal(ignored, trained(IMAGES))
    assert not torch.equal(default, ignored)


def test_the_box_sees_what_the_student_sees_before_either_prepares_it():
    seen = []

    class Watching(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small()

        def forward(self, x):
            if len(x) > 1:
                seen.append(("student", x.clone()))
            return self.inner(x)

    def watched(images):
        seen.append(("box", images.clone()))
        return says(images)

    box = BlackBox(watched, output="logits", preprocess=lambda x: x + 1)
    questions = TransferSet(IMAGES[:4], 16)
    run(box, Watching(), questions, epochs=1, student_preprocess=lambda x: 2 * x)
    for (first, asked), (second, shown) in zip(seen[:4:2], seen[1:4:2], strict=True):
        assert (first, second) == ("box", "student")
        assert_close(shown, 2 * (asked - 1))


# ---- what is reported ------------------------------------------------------------------------


def naive_fidelity(box_logits, student_logits):
    p, q = box_logits.softmax(1).numpy(), student_logits.softmax(1).numpy()
    kl = np.mean([np.sum(a * np.log(a / b)) for a, b in zip(p, q, strict=True)])
    z_t = np.array([row - row.mean() for row in box_logits.numpy()])
    z_s = np.array([row - row.mean() for row in student_logits.numpy()])
    r2 = 1 - np.sum((z_t - z_s) ** 2) / np.sum((z_t - z_t.mean(0)) ** 2)
    return np.mean(p.argmax(1) == q.argmax(1)), kl, r2


def test_evaluate_equals_its_definition_and_asks_once():
    student, box = small().double().train(), logits_box()
    images = IMAGES.double()
    fidelity = evaluate(box, student, images, batch_size=7)
    wanted = naive_fidelity(says(images), student(images).detach())
    assert_close(tuple(map(float, fidelity[:3])), tuple(map(float, wanted)))
    assert fidelity.images == box.queries == 40
    assert student.training


def test_the_report_is_about_the_weights_that_the_student_has():
    student, validation = small(), pictures(30, seed=7)

    def wild(parameters):
        return torch.optim.SGD(parameters, lr=0.9, momentum=0.9)

    report = run(logits_box(), student, validation=validation, epochs=12, optimizer=wild)
    again = evaluate(logits_box(), student, validation)
    assert report.best_epoch == 1 + int(np.argmin(report.validation_kl))
    assert_close((report.agreement, report.kl, report.r2), tuple(again[:3]))
    assert report.evaluated_on == "validation"
    assert report.evaluated_images == 30
    assert len(report.validation_agreement) == len(report.loss_curve) == report.epochs_run == 12


def test_queries_are_images_times_epochs_and_validation_once():
    box = logits_box()
    assert run(box, small(), epochs=3).queries == box.queries == 40 * 3
    box = logits_box()
    report = run(box, small(), epochs=3, validation=pictures(7, seed=7))
    assert report.queries == box.queries == 40 * 3 + 7


def test_a_cache_answers_from_the_second_epoch_on(tmp_path):
    box = logits_box(cache=tmp_path / "answers.sqlite")
    questions = TransferSet(IMAGES[:4], 20)
    assert run(box, small(), questions, epochs=3).queries == 20
    assert run(box, small(), questions, epochs=3).queries == 0


def test_what_a_box_draws_or_remembers_does_not_move_the_students_dropout():
    def noisy(images):
        torch.rand(3), np.random.rand(), random.random()  # noqa: NPY002
        return says(images)

    weights = []
    for fn, cache in ((says, None), (noisy, None), (noisy, ":memory:")):
        torch.manual_seed(0)
        student = TwoConvs(classes=3)
        run(BlackBox(fn, output="logits", cache=cache), student, epochs=3)
        weights.append(student.state_dict())
    assert_close(weights[1], weights[0], rtol=0, atol=0)
    assert_close(weights[2], weights[0], rtol=0, atol=0)


def test_training_stops_when_validation_no_longer_gains():
    report = run(
        logits_box(),
        small(),
        validation=pictures(10, seed=7),
        epochs=50,
        patience=2,
        optimizer=lambda each: torch.optim.SGD(each, lr=2.0),
    )
    assert report.epochs_run == report.best_epoch + 2 < 50


def test_without_validation_the_last_epoch_is_judged():
    student = small()
    report = run(logits_box(), student)
    again = evaluate(logits_box(), student, IMAGES)
    assert report.evaluated_on == "training"
    assert_close((report.agreement, report.kl, report.r2), tuple(again[:3]))
    assert report.evaluated_images == 40


def test_an_unfaithful_student_is_warned_about():
    with pytest.warns(ExplanationWarning) as caught:
        report = run(
            logits_box(), small(), min_fidelity=1.0, epochs=1, validation=pictures(50, seed=7)
        )
    assert str(caught[0].message) == (
        f"the student agrees with the black box on {100 * report.agreement:.1f} % of the "
        "validation images, less than 100.0 %: an explanation of it explains the box badly. Train "
        "longer, on more images (TransferSet makes more of a few), or take a larger student"
    )


def test_a_report_goes_through_json():
    report = run(logits_box(), small(), validation=pictures(7, seed=7))
    back = DistillationReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert back == report
    assert str(report).startswith(f"agreement {100 * report.agreement:.1f} %, KL {report.kl:.4f}")


def test_the_progress_bar_is_drawn_only_when_asked_for(capsys):
    box = logits_box()
    run(box, small())
    assert capsys.readouterr().err == ""
    distill(box, small(), IMAGES, epochs=2, batch_size=8, min_fidelity=0.0)
    assert "distill: 100%" in capsys.readouterr().err


# ---- what is left alone ----------------------------------------------------------------------


def fragile_student():
    student = TwoConvs().eval()
    student.norm.train()
    student.conv1.bias.requires_grad_(False)
    for parameter in student.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.ones_like(parameter)
    return student


@pytest.mark.parametrize("ending", ["well", "box raises", "budget", "class mismatch"])
@pytest.mark.filterwarnings("ignore::captum_blackbox.errors.ExplanationWarning")
def test_only_the_students_weights_change(ending, device, as_users_call):
    # The shape checks of tests draw random numbers themselves.
    student = fragile_student()
    before, frozen = State(student), student.conv1.bias.clone()
    calls = []

    def fn(images):
        calls.append(1)
        if ending == "box raises" and len(calls) == 3:
            raise ConnectionError("gone")
        return images.mean(1).flatten(1)[:, : 5 if ending == "class mismatch" else 4]

    box = BlackBox(fn, output="logits", query_budget=20 if ending == "budget" else None)
    state = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    problems = {
        "box raises": BlackBoxError,
        "budget": QueryBudgetError,
        "class mismatch": OutputError,
    }
    if ending == "well":
        run(box, student, device=device)
    else:
        with pytest.raises(problems[ending]):
            run(box, student, device=device)
    unchanged = {"hooks", "training", "inplace", "forwards", "requires_grad", "gradients"}
    assert not unchanged & set(before.differences(State(student)))
    assert torch.equal(student.conv1.bias, frozen)
    assert all(each.device.type == "cpu" for each in student.state_dict().values())
    assert state[0] == random.getstate()
    assert state[1] == np.random.get_state()[1].tolist()  # noqa: NPY002
    assert torch.equal(state[2], torch.get_rng_state())


def test_a_box_around_a_module_is_only_called():
    """T06: no gradient reaches it, and no weight, buffer or flag changes."""
    teacher = TwoConvs(classes=3).train()
    before = State(teacher)
    box = BlackBox(teacher, output="logits")
    run(box, small())
    assert before.differences(State(teacher)) == []
    assert box.queries == 80


def test_it_works_under_no_grad():
    with torch.no_grad():
        report = run(logits_box(), small(), epochs=10)
    assert report.loss_curve[-1] < report.loss_curve[0]


def test_runs_are_repeatable_by_the_seed():
    def weights(seed):
        torch.manual_seed(0)
        student = TwoConvs(classes=3)
        torch.manual_seed(seed + 77)  # the state outside does not matter
        run(logits_box(), student, seed=seed)
        return student.linear.weight.detach()

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


# ---- data ------------------------------------------------------------------------------------


def test_every_way_to_give_the_images_trains_the_same_student():
    loader = {"batch_size": 8, "shuffle": True}
    sources = [
        IMAGES,
        TensorDataset(IMAGES),
        list(IMAGES),
        DataLoader(TensorDataset(IMAGES), **loader),
        DataLoader(IMAGES, num_workers=1, **loader),
    ]
    weights = []
    for source in sources:
        student = small()
        run(logits_box(), student, source)
        weights.append(student.state_dict())
    for other in weights[1:]:
        assert_close(other, weights[0], rtol=0, atol=0)


def test_batches_are_a_shuffle_that_leaves_no_image_out_and_no_batch_of_one():
    images = torch.arange(65.0).reshape(65, 1, 1, 1)
    orders = []
    for epoch in (0, 1):
        sizes, seen = [], []
        for batch in Batches(images, 64, shuffle=True, seed=3).epoch(epoch):
            sizes.append(len(batch.images))
            seen += batch.images.flatten().tolist()
        assert sizes == [33, 32]
        assert sorted(seen) == list(range(65))
        assert seen != sorted(seen)
        orders.append(seen)
    assert orders[0] != orders[1]


@pytest.mark.parametrize(("count", "processes"), [(5, 2), (9, 2), (4, 3), (10, 4), (16, 2)])
def test_processes_share_out_every_image_once(count, processes):
    images = torch.arange(float(count)).reshape(-1, 1, 1, 1)
    shares = [
        list(Batches(images, 1, shuffle=True, process=process, processes=processes).epoch(2))
        for process in range(processes)
    ]
    seen = [i for share in shares for batch in share for i in batch.images.flatten().tolist()]
    assert sorted(seen) == list(range(count))
    for together in zip(*shares, strict=True):
        assert {batch.total for batch in together} == {sum(len(b.images) for b in together)}


def test_drop_last_and_order_of_a_loader_are_kept():
    images = torch.arange(10.0).reshape(10, 1, 1, 1)
    loader = DataLoader(images, batch_size=4, drop_last=True)
    batches = [batch.images.flatten().tolist() for batch in Batches(loader, shuffle=True).epoch(0)]
    assert batches == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_loader_with_its_own_sampler_is_read_as_it_is():
    sampler = WeightedRandomSampler([1.0] + [0.0] * 39, 6)
    report = run(logits_box(), small(), DataLoader(IMAGES, batch_size=3, sampler=sampler))
    assert report.queries == 12
    with pytest.raises(InputError) as error:
        Batches(DataLoader(IMAGES, sampler=sampler), shuffle=True, processes=2)
    assert str(error.value) == (
        "a loader with a sampler of its own cannot be shared out among 2 processes; give its data "
        "set instead"
    )


def test_an_iterable_data_set_is_read_as_it_is():
    class Stream(IterableDataset):
        def __iter__(self):
            return iter(IMAGES[:10])

    assert run(logits_box(), small(), DataLoader(Stream(), batch_size=4)).queries == 20


# ---- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"epochs": 0}, InputError, "epochs must be at least 1, got 0"),
        ({"batch_size": 0}, InputError, "batch_size must be at least 1, got 0"),
        ({"temperature": 0.0}, InputError, "temperature must be from 1e-06 to 1e+06, got 0.0"),
        ({"alpha": 1.5}, InputError, "alpha must be from 0 to 1, got 1.5"),
        ({"seed": -1}, InputError, "seed must be at least 0, got -1"),
        (
            {"patience": 2},
            InputError,
            "patience needs validation images: there is nothing to judge an epoch by",
        ),
        ({"data": IMAGES[:0]}, InputError, "the data is empty; give at least one image"),
        ({"validation": IMAGES[:0]}, InputError, "the data is empty; give at least one image"),
        (
            {"data": (IMAGES * 255).byte()},
            ShapeError,
            "the data must give floating-point images (C, H, W), batched to (N, C, H, W), got "
            "torch.uint8 (8, 3, 6, 6)",
        ),
        (
            {"data": IMAGES[:, 0]},
            ShapeError,
            "the data must give floating-point images (C, H, W), batched to (N, C, H, W), got "
            "torch.float32 (8, 6, 6)",
        ),
        (
            {"data": TensorDataset(IMAGES, IMAGES, IMAGES)},
            InputError,
            "the data must give images or pairs (image, label), got 3 parts",
        ),
        (
            {"data": TensorDataset(IMAGES, torch.full((40,), 3))},
            InputError,
            "labels run from 3 to 3, the box has classes 0 … 2; give alpha=1.0 to ignore them",
        ),
        (
            {"optimizer": lambda parameters: None},
            InputError,
            "optimizer is a function from parameters to a torch Optimizer, it returned a NoneType",
        ),
        (
            {"mixed_precision": "fp8"},
            InputError,
            "mixed_precision is 'no', 'bf16', 'fp16' or None, got 'fp8'",
        ),
    ],
)
def test_what_cannot_be_used_is_named(settings, error, message, as_users_call):
    settings = dict(settings)
    with pytest.raises(error) as raised:
        run(logits_box(), small(), settings.pop("data", IMAGES), **settings)
    assert str(raised.value) == message


@pytest.mark.parametrize("known", [3, None])
def test_a_student_with_other_classes_is_refused_before_it_is_trained(known):
    student, box = small(classes=4), logits_box(num_classes=known)
    before = State(student)
    with pytest.raises(OutputError) as error:
        run(box, student)
    assert str(error.value) == (
        "the student puts out 4 classes, the black box answers 3; give the student a last layer "
        "of 3 outputs"
    )
    assert before.differences(State(student)) == []
    assert box.queries == (0 if known else 8)


def test_images_that_the_student_cannot_take_are_refused_before_anything_is_asked():
    box = logits_box()
    with pytest.raises(ShapeError, match=re.escape("cannot take images of shape (8, 3, 9, 9)")):
        run(box, small(), rand(16, 3, 9, 9))
    assert box.queries == 0


def test_a_student_without_logits_is_refused():
    with pytest.raises(OutputError, match=r"must put out logits \(1, classes\) for 1 images, got"):
        run(logits_box(), nn.Conv2d(3, 3, 6))


def test_a_student_with_nothing_to_train_is_refused():
    with pytest.raises(InputError, match="no weight that requires a gradient: nothing to train"):
        run(logits_box(), small().requires_grad_(False))


def test_a_loss_that_is_no_number_ends_the_run():
    data = IMAGES.clone()
    data[:, 0, 0, 0] = float("inf")
    student = small()
    box = BlackBox(lambda x: says(x[:, :, 1:]), output="logits")
    with pytest.raises(TrainingError) as error:
        run(box, student, data)
    assert str(error.value) == (
        "the loss became nan in epoch 1, step 1; lower the learning rate, set max_gradient_norm, "
        "or look for NaN in the images"
    )
    assert all(each.isfinite().all() for each in student.parameters())


def test_mixed_precision_trains_without_a_trace_and_is_one_choice_per_process(as_users_call):
    AcceleratorState._reset_state(reset_partial_state=True)
    try:
        student = small()
        report = run(logits_box(), student, mixed_precision="bf16", epochs=8)
        assert report.loss_curve[-1] < report.loss_curve[0]
        assert "forward" not in vars(student)
        assert all(each.dtype == torch.float32 for each in student.parameters())
        plain = small()
        AcceleratorState._reset_state(reset_partial_state=True)
        run(logits_box(), plain, mixed_precision="no", epochs=8)
        assert not torch.equal(plain[0].weight, student[0].weight)
        with pytest.raises(InputError) as error:
            run(logits_box(), student, mixed_precision="bf16")
        assert str(error.value) == (
            "mixed_precision='bf16' was asked for, but this process already trains with 'no', and "
            "Accelerate keeps one choice per process; start a new process"
        )
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


# ---- real ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_random_forest_is_learned_from_its_probabilities():
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    ensemble = pytest.importorskip("sklearn.ensemble")
    digits = sklearn_datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    train, held_out = order[:1400], order[1400:]
    forest = ensemble.RandomForestClassifier(100, random_state=0)
    forest.fit(digits.data[train] / 16, digits.target[train])
    images = torch.from_numpy(digits.images / 16).float()[:, None]
    box = BlackBox.from_sklearn(forest, output="probs", cache=":memory:")
    questions = TransferSet(images[train], 4000, flip=False, crop=0.7)
    torch.manual_seed(0)
    student = student_network("small_cnn", 10, in_channels=1)
    report = distill(
        box, student, questions, epochs=4, validation=images[held_out], show_progress=False
    )
    assert report.agreement >= 0.90, report
    assert report.queries == box.queries <= 4000 + len(held_out)


@pytest.mark.slow
@pytest.mark.real
def test_the_mnist_network_is_learned_from_its_answers(data):
    digits = data.mnist()
    generator = torch.Generator().manual_seed(0)  # they lie in the order of their classes
    train, held_out = (
        pixels[torch.randperm(len(pixels), generator=generator)[:count]].float() / 127.5 - 1
        for pixels, count in ((digits["train_images"], 8000), (digits["test_images"], 1000))
    )
    box = BlackBox(nn.Sequential(data.cnn_mnist(), nn.Softmax(1)), output="probs")
    torch.manual_seed(0)
    student = SmallCNN(10, in_channels=1, width=16)
    report = distill(
        box,
        student,
        train,
        epochs=2,
        batch_size=32,
        optimizer=lambda each: torch.optim.Adam(each, lr=2e-3),
        validation=held_out,
        show_progress=False,
    )
    assert report.agreement >= 0.97, report
    assert report.queries == box.queries == 2 * 8000 + 1000
