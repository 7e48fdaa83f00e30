"""The attacks that ``attack`` names: each on one explanation of a network, with its settings."""

from dataclasses import dataclass

from torch import Tensor, nn

from captum_blackbox.cli.images import Preparation
from captum_blackbox.compare.attributions import BY_GRADIENT, Explained
from captum_blackbox.fragility import InterpretationAttack
from captum_blackbox.fragility.surrogate import DEFAULT_BETA


@dataclass(frozen=True)
class Attackers:
    """Makes the attack on an explanation of a network.

    Attributes:
        network: The network.
        preparation: How it takes images.
        example: An image that it takes, ``(1, C, H, W)``, on its device.
        passes: Steps of integrated gradients, and noisy copies of SmoothGrad.
        at_once: Images in an attack.
        beta: Of the surrogate; ``None`` for the attack's own default.
    """

    network: nn.Module
    preparation: Preparation
    example: Tensor
    passes: int
    at_once: int
    beta: float | None

    def attack(self, method: str) -> InterpretationAttack:
        """Return the attack on a method, one of ``attack_options.METHODS``.

        Raises:
            CaptumBlackboxError: The network has no such explanation, or none that can be attacked.
        """
        preparation = self.preparation
        made = BY_GRADIENT[method](
            Explained(self.network, self.example, preparation.std, self.passes, self.at_once)
        )
        return InterpretationAttack.normalized(
            made.attribution,
            mean=preparation.mean,
            std=preparation.std,
            attribute_kwargs=made.settings,
            beta=DEFAULT_BETA if self.beta is None else self.beta,
        )
