"""How much an audit spends."""

from collections.abc import Mapping
from dataclasses import dataclass

from captum_blackbox.errors import InputError, check_choice


@dataclass(frozen=True)
class AuditBudget:
    """How much an audit spends on an image.

    Attributes:
        masks: That RISE draws.
        game_steps: Steps of the deletion and insertion games.
        patches: Most patches of the patch degradation.
        changes: Random changes for the infidelity.
        passes: Steps of integrated gradients, and noisy copies of SmoothGrad.
        attack_steps: Of an attack.
        radii: Largest change of a pixel in [0, 1], as text and as a number, from small to large.
        modes: What attacks aim at; ``"random"`` is what they are compared with.
        shown: How many images the page shows.
        queries: Least questions to teach a student with.
        epochs: Passes over them.
        check_every: Steps between two looks at what an attack has reached.
        attacked: How many images are attacked, the first ones; ``None`` for all.
    """

    masks: int
    game_steps: int
    patches: int
    changes: int
    passes: int
    attack_steps: int
    radii: Mapping[str, float]
    modes: tuple[str, ...]
    shown: int
    queries: int
    epochs: int
    check_every: int = 1
    attacked: int | None = None

    def __post_init__(self) -> None:
        """Refuse what gives no number.

        Raises:
            InputError: A number is too small, or there is no radius or mode.
        """
        least = {"queries": 0, "shown": 1}
        for name, value in vars(self).items():
            if isinstance(value, int) and value < least.get(name, 1):
                raise InputError(
                    f"{name} of an audit is at least {least.get(name, 1)}, got {value}"
                )
        if not self.radii or not self.modes:
            raise InputError("an audit needs a radius and a mode to attack with")


def _radii(*parts: int) -> dict[str, float]:
    return {f"{part}/255": part / 255 for part in parts}


BUDGETS: Mapping[str, AuditBudget] = {
    "quick": AuditBudget(
        masks=300,
        game_steps=28,
        patches=32,
        changes=16,
        passes=10,
        attack_steps=20,
        radii=_radii(8),
        modes=("topk", "random"),
        shown=4,
        queries=2000,
        epochs=20,
        check_every=2,
        attacked=5,
    ),
    "standard": AuditBudget(
        masks=2000,
        game_steps=56,
        patches=100,
        changes=32,
        passes=32,
        attack_steps=100,
        radii=_radii(2, 4, 8),
        modes=("topk", "mass_center", "random"),
        shown=6,
        queries=5000,
        epochs=30,
        check_every=2,
    ),
    "paper": AuditBudget(
        masks=4000,
        game_steps=28,
        patches=100,
        changes=64,
        passes=100,
        attack_steps=300,
        radii=_radii(1, 2, 4, 8),
        modes=("topk", "mass_center", "random"),
        shown=8,
        queries=20_000,
        epochs=30,
    ),
}
"""``"quick"`` for a first look, ``"standard"``, and ``"paper"`` for numbers to publish."""


def budget_named(budget: AuditBudget | str) -> AuditBudget:
    """Return a budget that may be given by its name.

    Raises:
        InputError: There is no such budget.

    Example:
        >>> budget_named("quick").masks
        300
    """
    if isinstance(budget, AuditBudget):
        return budget
    check_choice("the budget", budget, list(BUDGETS))
    return BUDGETS[budget]
