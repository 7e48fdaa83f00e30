"""How far a student is from what a black box answered: pure functions of logits and answers."""

import math
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_blackbox.black_box import Answers, OutputKind, TopK
from captum_blackbox.errors import InputError, check_choice
from captum_blackbox.shapes import Labels, Logits

Loss: TypeAlias = Literal["kl", "mse"]
TopKMode: TypeAlias = Literal["uniform", "bucket", "renormalize"]

PROB_FLOOR = 1e-7
"""Smallest probability a teacher is taken to give, so that its logarithm is finite."""


def distillation_loss(
    logits: Tensor,
    answers: Answers,
    output: OutputKind,
    *,
    labels: Tensor | None = None,
    temperature: float = 4.0,
    alpha: float = 1.0,
    loss: Loss = "kl",
    topk: TopKMode = "uniform",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the mean over the batch of what a student's logits lose against a box's answers.

    ``alpha · soft + (1 - alpha) · CE(logits, labels)``, where ``alpha`` weighs the *soft* term
    (published code disagrees on which term it weighs) and the soft term is

    * ``T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))`` for ``loss="kl"`` (Hinton et al. 2015,
      section 2; ``T²`` keeps the size of the gradient independent of ``T``);
    * half the mean over classes of the squared difference of centred logits for ``loss="mse"``,
      the limit of the former for ``T → ∞`` (the same, section 2.1);
    * for ``output="labels"`` the cross-entropy with the box's labels; ``T`` has no effect.

    The teacher's logits ``z_t`` are read from any kind of answer by :func:`teacher_logits`, so
    logits, probabilities and log-probabilities of the same box give the same loss.

    Args:
        logits: The student's, ``(N, classes)``; the loss is computed in float32 or wider.
        answers: ``box.answers(images)``.
        output: ``box.output``.
        labels: True classes ``(N,)``; by default the box's best class.
        temperature: ``T`` > 0.
        alpha: Weight of the soft term, from 0 to 1.
        loss: Of the soft term.
        topk: How a top-k answer stands for all classes, see :func:`teacher_logits`; ``"bucket"``
            compares listed classes and the rest as ``k + 1`` events, at ``T = 1``.
        label_smoothing: Of every cross-entropy, from 0 to 1.

    Raises:
        InputError: The answers do not hold what the loss needs.

    Example:
        >>> teacher = torch.tensor([[2.0, 0.0, -2.0]])
        >>> distillation_loss(teacher + 5, teacher, "logits").abs() < 1e-6
        tensor(True)
        >>> distillation_loss(torch.zeros(1, 3), teacher, "logits", loss="mse")
        tensor(1.3333)
    """
    check_loss(output, loss, topk)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if output == "labels":
        soft = F.cross_entropy(logits, best_class(answers), label_smoothing=label_smoothing)
    elif isinstance(answers, TopK) and topk == "bucket":
        soft = bucket_kl(logits, answers)
    else:
        teacher = teacher_logits(answers, output, logits.shape[1], topk=topk).to(logits.dtype)
        soft = (
            softened_kl(logits, teacher, temperature)
            if loss == "kl"
            else centred_mse(logits, teacher)
        )
    if alpha == 1:
        return soft
    hard_labels = best_class(answers) if labels is None else labels
    hard = F.cross_entropy(logits, hard_labels, label_smoothing=label_smoothing)
    return alpha * soft + (1 - alpha) * hard


def check_loss(output: OutputKind, loss: Loss, topk: TopKMode) -> None:
    """Refuse settings that do not exist or that do not go together.

    Raises:
        InputError: With what is wrong and what to choose.
    """
    for name, value, known in (("loss", loss, Loss), ("topk", topk, TopKMode)):
        check_choice(name, value, get_args(known))
    gives_all_classes = output != "labels" and not (output == "topk" and topk == "bucket")
    if loss == "mse" and not gives_all_classes:
        got = "output='labels'" if output == "labels" else "output='topk' with topk='bucket'"
        raise InputError(
            f"loss='mse' compares logits of all classes, which {got} does not give; choose "
            "loss='kl'"
        )


def softened_kl(logits: Logits, teacher: Logits, temperature: float) -> Tensor:
    """Return ``T² · KL(softmax(teacher / T) ‖ softmax(logits / T))``, mean over the batch.

    Example:
        >>> softened_kl(torch.zeros(1, 2), torch.tensor([[0.0, math.log(3)]]), temperature=1.0)
        tensor(0.1308)
    """
    student_log = (logits / temperature).log_softmax(1)
    teacher_log = (teacher / temperature).log_softmax(1)
    divergence = F.kl_div(student_log, teacher_log, reduction="batchmean", log_target=True)
    return temperature**2 * divergence


def centred_mse(logits: Logits, teacher: Logits) -> Tensor:
    """Return half the mean over classes of the squared difference of centred logits, batch mean.

    Example:
        >>> centred_mse(torch.tensor([[1.0, 3.0]]), torch.tensor([[5.0, 5.0]]))
        tensor(0.5000)
    """
    difference = centred(logits) - centred(teacher)
    return difference.square().mean() / 2


def bucket_kl(logits: Logits, answers: TopK) -> Tensor:
    """Return the divergence of ``k + 1`` events, listed classes and the rest, mean over the batch.

    ``Σ_listed q_c log(q_c / p_c) + r log(r / (1 - Σ_listed p_c))`` with ``r = 1 - Σ_listed q_c``
    and the student's ``p``, both at ``T = 1``. Never larger than the divergence of all classes;
    equal to it if every class, or every class but one, is listed.

    Example:
        >>> listed = TopK(torch.tensor([[0.5]]), torch.tensor([[0]]))
        >>> bucket_kl(torch.tensor([[math.log(2), 0.0, 0.0]]), listed).abs() < 1e-6
        tensor(True)
    """
    student_log = logits.log_softmax(1)
    # The rest in logarithms: 1 - Σ p loses all digits where the listed classes take everything.
    unlisted = torch.ones_like(student_log, dtype=torch.bool).scatter(1, answers.indices, False)
    student_events = student_log.gather(1, answers.indices)
    teacher_events = answers.values.to(logits.dtype)
    if answers.indices.shape[1] < logits.shape[1]:
        rest = student_log.masked_fill(~unlisted, -math.inf).logsumexp(1, keepdim=True)
        student_events = torch.cat([student_events, rest], 1)
        remainder = (1 - teacher_events.sum(1, keepdim=True)).clamp_min(0)
        teacher_events = torch.cat([teacher_events, remainder], 1)
    teacher_events = teacher_events / teacher_events.sum(1, keepdim=True)
    return F.kl_div(student_events, teacher_events, reduction="batchmean")


def teacher_logits(
    answers: Answers, output: OutputKind, num_classes: int, *, topk: TopKMode = "uniform"
) -> Logits:
    """Read answers as logits, ``(N, num_classes)`` in float32 or wider.

    The softmax of ``log p / T`` is ``p^(1/T) / Σ p^(1/T)``, the same as from the box's logits, so
    log-probabilities serve as logits. Probabilities below ``PROB_FLOOR`` are raised to it.

    Args:
        answers: ``box.answers(images)``; not labels, which have no logits.
        output: ``box.output``.
        num_classes: Number of classes.
        topk: For unlisted classes ``"uniform"`` shares what the listed ones leave of 1 evenly;
            ``"renormalize"`` leaves them nothing but the floor and scales the listed ones to 1.

    Example:
        >>> listed = TopK(torch.tensor([[0.5, 0.25]]), torch.tensor([[2, 0]]))
        >>> teacher_logits(listed, "topk", 4).exp()
        tensor([[0.2500, 0.1250, 0.5000, 0.1250]])
    """
    if isinstance(answers, TopK):
        return _all_classes(answers, num_classes, topk).clamp_min(PROB_FLOOR).log()
    scores = answers.to(torch.promote_types(answers.dtype, torch.float32))
    if output == "probs":
        return scores.clamp_min(PROB_FLOOR).log()
    if output == "log_probs":
        return scores.clamp_min(math.log(PROB_FLOOR))
    return scores


def best_class(answers: Answers) -> Labels:
    """Return the class that the box finds most likely, ``(N,)`` int64, from any kind of answer.

    Example:
        >>> best_class(TopK(torch.tensor([[0.2, 0.7]]), torch.tensor([[5, 3]])))
        tensor([3])
    """
    if isinstance(answers, TopK):
        return answers.indices.gather(1, answers.values.argmax(1, keepdim=True))[:, 0]
    return answers if answers.dim() == 1 else answers.argmax(1)


def centred(logits: Logits) -> Logits:
    """Return logits minus their mean over classes: a softmax does not see that mean."""
    return logits - logits.mean(1, keepdim=True)


def _all_classes(answers: TopK, num_classes: int, topk: TopKMode) -> Logits:
    values = answers.values.to(torch.promote_types(answers.values.dtype, torch.float32))
    listed, count = values.sum(1, keepdim=True), values.shape[1]
    share = torch.zeros_like(listed)
    if topk == "renormalize":
        values = values / listed.clamp_min(PROB_FLOOR)
    elif count < num_classes:
        share = (1 - listed).clamp_min(0) / (num_classes - count)
    return share.expand(-1, num_classes).scatter(1, answers.indices, values)
