"""How far an invisible change moves each explanation while the prediction stays."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from captum_blackbox.audit.graphs import check_graph
from captum_blackbox.audit.methods import RANDOM, AuditMethod
from captum_blackbox.audit.shaking import shaken
from captum_blackbox.audit.workplace import Workplace
from captum_blackbox.compare.attributions import Configured, without_settings
from captum_blackbox.compare.context import NotApplicableError
from captum_blackbox.compare.method_kinds import is_attributor, is_composite
from captum_blackbox.errors import ArtifactError, QueryBudgetError, VictimError
from captum_blackbox.fragility import InterpretationAttack, normalised
from captum_blackbox.fragility.curves import fragility_curves
from captum_blackbox.fragility.curves_result import MEASURES, FragilityCurves
from captum_blackbox.fragility.result import NO_SIGNAL

HALF = 0.5  # of the most important pixels, below which an explanation of an image is broken
NOT_FOLLOWED = "it has no derivative that an attack could follow"
RANDOM_MODE = "random"


@dataclass(frozen=True)
class AttackedImage:
    """One image before and after an attack on its explanation.

    Attributes:
        row: Number of the image.
        inputs: The attacked image, ``(C, H, W)``.
        clean_map: Importance before, ``(H, W)``, not negative.
        attacked_map: Importance after.
        left: Share of the most important pixels left, in [0, 1].
        reason: Why the attack gained nothing; empty if it did.
    """

    row: int
    inputs: Tensor
    clean_map: Tensor
    attacked_map: Tensor
    left: float
    reason: str = ""


@dataclass(frozen=True)
class Fragility:
    """What attacks on explanations found.

    Attributes:
        curves: Method → its numbers.
        pictures: Method → one image.
        reasons: Method that was not attacked → why.
        shaken: Method that no attack can follow → radius → share of the most important pixels that
            random signs leave, ``(attacked,)``.
        radii: As text → as a number, from small to large.
        modes: What was aimed at.
    """

    curves: Mapping[str, FragilityCurves]
    pictures: Mapping[str, AttackedImage]
    reasons: Mapping[str, str]
    shaken: Mapping[str, Mapping[float, Tensor]]
    radii: Mapping[str, float]
    modes: tuple[str, ...] = field(default=())

    @property
    def aims(self) -> list[str]:
        """The modes that aim at something."""
        return [mode for mode in self.modes if mode != RANDOM_MODE] or list(self.modes)

    def together(self, methods: Mapping[str, AuditMethod]) -> FragilityCurves | None:
        """Return the numbers of all methods as one; ``None`` if none was attacked."""
        if not self.curves:
            return None
        first = next(iter(self.curves.values()))
        return FragilityCurves(
            tuple(methods[name].name for name in self.curves),
            first.modes,
            first.radii,
            torch.cat([each.values for each in self.curves.values()]),
            failures=tuple(f for each in self.curves.values() for f in each.failures),
        )

    def left(self, method: str, mode: str, radius: float) -> Tensor:
        """Return the share of the most important pixels left on each image, ``(attacked,)``."""
        return self.curves[method].scores(method, "intersection", mode=mode, radius=radius)

    def weakest(self, method: str, radius: float) -> Tensor:
        """Return the same for the aim that leaves the fewest, image by image.

        For methods that no attack can follow, what random signs leave.
        """
        if method in self.shaken:
            return self.shaken[method][radius]
        shares = torch.stack([self.left(method, mode, radius) for mode in self.aims])
        known = torch.where(shares.isnan(), torch.inf, shares).min(0).values
        return torch.where(known.isinf(), torch.nan, known)


def attacked(place: Workplace, methods: Mapping[str, AuditMethod]) -> Fragility:
    """Attack every explanation that has a derivative; what is kept is not done again.

    Raises:
        ArtifactError: What is kept of an attack is of another explanation, or cannot be kept.
        QueryBudgetError: The budget of the black box is used up.
    """
    curves: dict[str, FragilityCurves] = {}
    pictures: dict[str, AttackedImage] = {}
    reasons: dict[str, str] = {}
    signs: dict[str, Mapping[float, Tensor]] = {}
    for name, method in methods.items():
        if name == RANDOM:
            reasons[name] = "it does not look at the image"
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # those of making it were told before
                try:
                    attack = attack_on(place, method)
                    curves[name] = _curves(place, name, method, attack)
                    pictures[name] = _picture(place, method, attack)
                    _check_moved(curves[name], pictures[name])
                    if set(place.budget.modes) == {RANDOM_MODE}:
                        reasons[name] = "the budget asks for random signs only"
                except VictimError as error:
                    curves.pop(name, None)
                    pictures.pop(name, None)
                    reasons[name] = _reason(error)
                    signs[name] = shaken(place, method)
        except (ArtifactError, QueryBudgetError):
            raise
        except NotApplicableError as error:
            reasons[name] = f"it {error}"
        except Exception as error:  # one method must not end an audit
            curves.pop(name, None)
            reasons[name] = _reason(error)
    budget = place.budget
    return Fragility(curves, pictures, reasons, signs, dict(budget.radii), budget.modes)


def attack_on(place: Workplace, method: AuditMethod) -> InterpretationAttack:
    """Return the attack on a method.

    Raises:
        VictimError: It has no derivative that an attack could follow.
    """
    made = method.make(place)
    if not method.is_attacked:
        raise VictimError(NOT_FOLLOWED)
    settings = made.settings if isinstance(made, Configured) else {}
    explanation, network = without_settings(made), place.model
    if is_composite(explanation):
        raise VictimError(
            "a composite alone keeps no graph of its map; give Zennit's Gradient(model, composite, "
            "create_graph=True)"
        )
    if not hasattr(explanation, "attribute") and not is_attributor(explanation):
        if network is None:
            raise VictimError(NOT_FOLLOWED)
        check_graph(explanation, place.example, method.name)
        explanation = _of_model(explanation, method.name)
    elif isinstance(_explained_by(explanation), nn.Module):
        network = None  # it is read off the attribution
    return InterpretationAttack.normalized(
        explanation,
        model=network,
        mean=place.images.mean,
        std=place.images.std,
        attribute_kwargs=dict(settings),
    )


def _explained_by(attribution: Any) -> Any:  # noqa: ANN401
    """Return what an attribution takes gradients of: of a distilled one, its student."""
    return getattr(attribution, "student", getattr(attribution, "forward_func", None))


def _check_moved(curves: FragilityCurves, picture: AttackedImage) -> None:
    """Refuse an attack that had no direction, and so moved nothing.

    Raises:
        VictimError: It had none.
    """
    left = curves.values[..., MEASURES.index("intersection"), :]
    if picture.reason == NO_SIGNAL and bool((left[:, _aimed(curves.modes)] == 1).all()):
        raise VictimError(f"{NO_SIGNAL}, so that no attack has a direction")


def _aimed(modes: Sequence[str]) -> list[int]:
    return [place for place, mode in enumerate(modes) if mode != RANDOM_MODE]


def _of_model(explain: Callable[[Tensor, Tensor], Any], name: str) -> Callable[..., Any]:
    """Return a function of images and classes as one of the model, images and classes."""

    def explained(_model: nn.Module, images: Tensor, targets: Tensor) -> Any:  # noqa: ANN401
        return explain(images, targets)

    explained.__name__ = name
    return explained


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _curves(
    place: Workplace, name: str, method: AuditMethod, attack: InterpretationAttack
) -> FragilityCurves:
    return fragility_curves(
        {name: attack},
        place.images.inputs[: place.budget.attacked],
        modes=place.budget.modes,
        radii=tuple(place.budget.radii.values()),
        step_num=place.budget.attack_steps,
        check_every=place.budget.check_every,
        batch_size=place.batch_size,
        resume=place.kept.path(f"fragility-{method.stem}"),
        seed=place.seed,
        show_progress=place.show_progress,
    )


def _picture(place: Workplace, method: AuditMethod, attack: InterpretationAttack) -> AttackedImage:
    """Return the first image, attacked once more for its picture."""
    stage, row = f"attacked-{method.stem}", 0
    modes, kept = place.budget.modes, place.kept.read(stage)
    if kept is None:
        result = attack.run(
            place.images.inputs[row : row + 1],
            max(place.budget.radii.values()),
            step_num=place.budget.attack_steps,
            check_every=place.budget.check_every,
            mode=modes[next(iter(_aimed(modes)), 0)],
            seed=place.seed,
        )
        tensors = {
            "inputs": result.inputs[0],
            "clean_map": normalised(result.clean_maps)[0].float(),
            "attacked_map": normalised(result.attacked_maps)[0].float(),
            "left": result.attacked.intersection[:1].double(),
        }
        header = {"reason": result.reasons[row]}
        place.kept.write(stage, tensors, header)
        kept = tensors, header
    found = {key: value.cpu() for key, value in kept[0].items()}
    maps = found["clean_map"], found["attacked_map"]
    return AttackedImage(
        row, found["inputs"], *maps, float(found["left"]), kept[1].get("reason", "")
    )
