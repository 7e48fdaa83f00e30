"""Ask how far each explanation of a model can be trusted, on the images at hand."""

import contextlib
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from captum_blackbox.artifacts import fingerprint, versions
from captum_blackbox.audit import concept_reasons
from captum_blackbox.audit.answers import Answers, asked
from captum_blackbox.audit.attacking import Fragility, attacked
from captum_blackbox.audit.budget import AuditBudget, budget_named
from captum_blackbox.audit.choosing import Methods, chosen_methods
from captum_blackbox.audit.concept_reasons import ConceptReasons
from captum_blackbox.audit.evidence import evidence_of
from captum_blackbox.audit.images import AuditImages
from captum_blackbox.audit.judging import judged
from captum_blackbox.audit.kept import Kept, digest_of
from captum_blackbox.audit.methods import AuditMethod, default_methods
from captum_blackbox.audit.verdicts import Evidence, Verdict, in_order, verdict
from captum_blackbox.audit.workplace import Workplace
from captum_blackbox.black_box import BlackBox, OutputKind, as_black_box
from captum_blackbox.compare import Comparison
from captum_blackbox.compare.attributions import without_settings
from captum_blackbox.concepts import Concepts
from captum_blackbox.dissection import NetworkDissection
from captum_blackbox.errors import CaptumBlackboxError, InputError
from captum_blackbox.hooks import evaluating
from captum_blackbox.student import DistillationReport


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        place: The model, the images with an answer, and the folder of what is kept.
        methods: Name → method.
        answers: What the model said; image without an answer → why.
        everything: All images that were given.
        comparison: Metrics by method and image.
        fragility: What attacks found.
        concepts: What units detect and what they added, if that was asked.
        agreement: Of the student with the black box; ``None`` without a student.
        evidence: Method → all numbers that its verdict follows from.
        verdicts: Method → what to believe.
        order: Methods, those to be trusted most first.
    """

    place: Workplace
    methods: Mapping[str, AuditMethod]
    answers: Answers
    everything: AuditImages
    comparison: Comparison
    fragility: Fragility
    concepts: ConceptReasons | None
    agreement: float | None
    evidence: Mapping[str, Evidence]
    verdicts: Mapping[str, Verdict]
    order: tuple[str, ...]

    @property
    def images(self) -> AuditImages:
        """The images that the model answered for."""
        return self.place.images

    def __str__(self) -> str:
        """Say in a paragraph for each method what to believe."""
        return "\n\n".join(
            f"{self.methods[name].name}: {each.grade.value}. {each.because} {each.believe}"
            for name, each in ((name, self.verdicts[name]) for name in self.order)
        )

    def write(
        self,
        out: str | Path,
        *,
        title: str = "How far can these explanations be trusted?",
        settings: Mapping[str, str] | None = None,
        skipped: Mapping[str, str] | None = None,
    ) -> Path:
        """Write the page and the files beside it; returns the path of the page.

        Args:
            out: A folder.
            title: Of the page.
            settings: What was run, for the page.
            skipped: File that was left out → why.

        Raises:
            ArtifactError: The folder cannot be written.
        """
        from captum_blackbox.audit.presentation import write_audit

        return write_audit(
            self, Path(out), title=title, settings=settings or {}, skipped=skipped or {}
        )


def run_audit(
    model_or_box: BlackBox | Callable[..., Any],
    images: AuditImages | Tensor,
    out: str | Path,
    *,
    methods: Methods | None = None,
    budget: AuditBudget | str = "quick",
    data: Tensor | None = None,
    dissection: NetworkDissection | None = None,
    concepts: Concepts | None = None,
    student: str | nn.Module | None = None,
    regime_centering: bool = True,
    output: OutputKind = "logits",
    identity: str = "",
    batch_size: int = 8,
    seed: int = 0,
    show_progress: bool = True,
) -> Audit:
    """Explain images by several methods, test the maps, and say what to believe of each method.

    The maps are judged by deletion, insertion, patch degradation and infidelity against random
    maps; attacked by changes that leave the prediction alone; looked up in the table of axioms;
    and, where concepts are given, the units of a layer say what carried each prediction. What is
    done is kept in ``out``: a second call with the same arguments goes on where the first stopped.

    A black box gets the methods that only call it, and a student that is taught to answer as it
    does, explained and attacked in its place.

    When not to use it: as a proof. On ten images small differences are invisible, an attack that
    failed proves nothing, and a method that passes all tests may still miss what you look for.

    Args:
        model_or_box: A module, which every method can look into; or a black box or any callable.
        images: With names, classes and normalisation; or a tensor ``(N, C, H, W)`` in [0, 1].
        out: A folder for what is kept, and for the page of :meth:`Audit.write`.
        methods: Names of :data:`METHODS`; or name → such a name, or what
            :func:`~captum_blackbox.compare.compare` takes: an attribution of Captum, Zennit or this
            library (with settings as :class:`~captum_blackbox.compare.Configured`), a composite, a
            class or function that makes one of a model, or a function of images and classes; or a
            list of both. By default some that suit the model; ``"random"`` is always there. What
            :class:`~captum_blackbox.InterpretationAttack` can follow is attacked, for the rest the
            page says why not: a function has to take its gradients with ``create_graph=True``.
            Axioms are known of the ready ones alone. A changed method is judged anew: it is known
            by its name, type, settings, layers, weights and code. Not seen is what a function looks
            up elsewhere, nor what is inside an object without Python attributes: call that by
            another name when it changes. What is made of a model is made once, from ``seed``.
        budget: ``"quick"``, ``"standard"``, ``"paper"``, or an :class:`AuditBudget`.
        data: Images to fit patterns and a student to, ``(M, C, H, W)`` as the model takes them; by
            default those explained, which are few. Without it ``"pattern-attribution"`` is not
            among the default methods.
        dissection: Of one layer of the module; with ``concepts``.
        concepts: What the units of that layer are matched with.
        student: For a black box: a network, or a name of
            :func:`~captum_blackbox.student.student_network`.
        regime_centering: Whether patterns are centred in their regime, which networks with
            BatchNorm need, see :func:`~captum_blackbox.patterns.fit_patterns`; without, they are
            the published ones.
        output: What ``model_or_box`` returns if it is no black box.
        identity: What else tells this model from another one, such as a hash of its file; weights
            of a module and answers on these images are known without it.
        batch_size: Images together.
        seed: Of everything random.
        show_progress: Show bars.

    Returns:
        The numbers, and the verdicts that follow from them.

    Raises:
        InputError: A method is unknown (the nearest names are offered) or is none, the model tells
            one class only, or arguments do not go together.
        ShapeError: ``images`` are no images.
        BlackBoxError: The model answers for no image. Images that it fails on are left out and
            reported.
        QueryBudgetError: The budget of the black box is used up; what was done is kept.
        ArtifactError: What is kept in ``out`` does not belong to it, or cannot be written.

    Example:
        >>> from tempfile import mkdtemp
        >>> import torch
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
        >>> audit = run_audit(
        ...     model, torch.rand(2, 3, 8, 8), mkdtemp(),
        ...     methods=["gradient", {"mine": lambda images, classes: images}], show_progress=False)
        >>> sorted(audit.verdicts), audit.comparison.images
        (['gradient', 'mine', 'random'], 2)
    """
    everything = images if isinstance(images, AuditImages) else AuditImages(images)
    concept_reasons.check_pair(dissection, concepts)
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}")
    model = model_or_box if isinstance(model_or_box, nn.Module) else None
    box = as_black_box(model_or_box, output)
    network = box.fn if isinstance(box.fn, nn.Module) else None
    chosen = chosen_methods(
        default_methods(is_open=model is not None, has_data=data is not None)
        if methods is None
        else methods,
        network,
        regime_centering=regime_centering,
    )
    spends = budget_named(budget)
    first = None if model is None else next(model.parameters(), None)
    everything = everything if first is None else everything.on(first.device)
    with ExitStack() as undo:
        if network is not None:
            undo.enter_context(evaluating(network))
        answers = asked(box, everything.inputs, batch_size)
        there = everything.rows(answers.rows)
        fitted_to = there.inputs if data is None else data
        kept = Kept.of(
            Path(out),
            {
                # Of a callable nothing but its answers tells it from another one.
                "model": answers.rounded if network is None else fingerprint(network),
                "identity": identity,
                "output": box.output,
                "images": [digest_of(there.inputs), list(there.mean), list(there.std)],
                "objects": None if there.objects is None else digest_of(there.objects),
                "data": digest_of(fitted_to),
                "student": _name_of(student),
                "regime_centering": regime_centering,
                "concepts": concept_reasons.identity(dissection, concepts),
                "budget": str(spends),
                "batch_size": batch_size,
                "seed": seed,
                "versions": versions(),
            },
        )
        place = Workplace(
            box, model, there, fitted_to, box.num_classes or 0, student, regime_centering, spends,
            batch_size, seed, kept, show_progress,
        )  # fmt: skip
        _fit(place, chosen)
        comparison = judged(place, chosen, answers.predicted)
        fragility = attacked(place, chosen)
        agreements = _agreements(place, chosen)
        reasons = None
        if dissection is not None and concepts is not None:
            reasons = concept_reasons.reasons(
                dissection,
                concepts,
                there.inputs[: spends.shown],
                answers.predicted[: spends.shown].tolist(),
                kept,
                show_progress=show_progress,
            )
    evidence = {
        name: evidence_of(name, method, comparison, fragility, there.objects, agreements.get(name))
        for name, method in chosen.items()
    }
    verdicts = {name: verdict(each) for name, each in evidence.items()}
    return Audit(
        place, chosen, answers, everything, comparison, fragility, reasons,
        next(iter(agreements.values()), None), evidence, verdicts,
        tuple(in_order(verdicts, evidence)),
    )  # fmt: skip


def _fit(place: Workplace, methods: Mapping[str, AuditMethod]) -> None:
    """Fit what has to be fitted; what fails here fails in the comparison again, and is told."""
    for method in methods.values():
        if method.is_fitted:
            with warnings.catch_warnings(), contextlib.suppress(CaptumBlackboxError, RuntimeError):
                warnings.simplefilter("ignore")  # the verdict says so
                method.make(place)


def _agreements(place: Workplace, methods: Mapping[str, AuditMethod]) -> dict[str, float]:
    """Return method → agreement of its student with the model, of those that have one."""
    agreements = {}
    for name, method in methods.items():
        if not method.may_have_student:
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of making it were told before
            try:
                made = without_settings(method.make(place))
            except Exception:  # noqa: S112 - it has failed before, and was told
                continue
        report = getattr(made, "report", None)
        if isinstance(report, DistillationReport):
            agreements[name] = float(report.agreement)
    return agreements


def _name_of(student: str | nn.Module | None) -> str | None:
    return fingerprint(student) if isinstance(student, nn.Module) else student
