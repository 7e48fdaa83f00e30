"""A step of an attack on an explanation against forward, backward and double backward passes."""

import warnings
from collections.abc import Callable

import torch
import torchvision
from captum.attr import IntegratedGradients, Saliency
from harness import Contestant, arguments, race, result, save
from patterns import peak
from torch import Tensor, nn

from captum_blackbox import InterpretationAttack, LayerSumGradCAM

GOAL, STEPS = 1.15, 3
BETA, RADIUS = 30.0, 8 / 255
NETWORKS = ("squeezenet1_0", "resnet18")
BOUNDS = {"lower_bound": -10.0, "upper_bound": 10.0}


def network(name: str, device: str) -> nn.Module:
    """Return a network with random weights."""
    torch.manual_seed(0)
    return getattr(torchvision.models, name)(weights=None).eval().requires_grad_(False).to(device)


def smooth(name: str, device: str) -> nn.Module:
    """Return the surrogate as a user would build it: a softplus module for every ReLU."""
    model = network(name, device)
    for module in list(model.modules()):
        for child_name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, child_name, nn.Softplus(BETA))
    return model


def chosen(maps: Tensor) -> Tensor:
    """Return the importance of a fiftieth of the pixels, as an objective of the top pixels does."""
    mass = maps.abs().sum(1)
    mass = mass / mass.sum((1, 2), keepdim=True)
    return -mass.flatten(1)[:, : mass[0].numel() // 50].sum(1)


def gradient(model: nn.Module, images: Tensor, graph: bool) -> Tensor:
    """Return the gradient of class 0."""
    (found,) = torch.autograd.grad(model(images)[:, 0].sum(), images, create_graph=graph)
    return found


def three_passes(model: nn.Module, images: Tensor, steps: int = 1) -> Callable[[], object]:
    """Return the floor: the gradient of a loss of the gradient, ``steps`` of them."""

    def call() -> object:
        for _ in range(steps):
            leaf = images.clone().requires_grad_()
            torch.autograd.grad(chosen(gradient(model, leaf, graph=True)).sum(), leaf)
        return None

    return call


def as_published(surrogate: nn.Module, model: nn.Module, images: Tensor) -> Callable[[], object]:
    """Return a step as the published code takes it: one image, and two checks of the network."""

    def call() -> object:
        for image in images.split(1):
            leaf = image.clone().requires_grad_()
            (direction,) = torch.autograd.grad(
                chosen(gradient(surrogate, leaf, graph=True)).sum(), leaf
            )
            moved = (image + RADIUS / 16 * direction.sign()).requires_grad_()
            with torch.no_grad():
                model(moved).argmax(1)
            gradient(model, moved, graph=False)
        return None

    return call


def ours(
    attack: InterpretationAttack, images: Tensor, *, check_every: int, units: float
) -> dict[str, object]:
    """Return how a step is timed: a run of more steps less one of a single step."""

    def run(steps: int) -> Callable[[], object]:
        settings = {"target": 0, "check_every": check_every, "k": 1000}
        return lambda: attack.run(images, RADIUS, step_num=steps, **settings)

    return {"call": run(1 + STEPS), "without": run(1), "units": STEPS * units, "ours": True}


def gradient_race(name: str, batch: int, rounds: int, device: str) -> dict:
    """Race a step of an attack on the gradient."""
    model, surrogate = network(name, device), smooth(name, device)
    images = torch.rand(batch, 3, 224, 224, device=device)
    attack = InterpretationAttack(Saliency(model), beta=BETA, **BOUNDS)
    usual = InterpretationAttack(Saliency(model), **BOUNDS)
    layer_sum = InterpretationAttack(LayerSumGradCAM(model), beta=BETA, **BOUNDS)
    return race(
        "attack step, gradient",
        Contestant("forward + backward + double backward", three_passes(surrogate, images)),
        [
            # The last step is always judged, in both runs: what is left are steps alone.
            Contestant(
                "captum_blackbox, a step alone",
                goal=GOAL,
                **ours(attack, images, check_every=10**6, units=1),
            ),
            Contestant(
                "captum_blackbox, label and explanation judged each step",
                **ours(attack, images, check_every=1, units=1),
            ),
            Contestant(
                "captum_blackbox, relative beta (the default), a step alone",
                **ours(usual, images, check_every=10**6, units=1),
            ),
            Contestant(
                "captum_blackbox, LayerSumGradCAM, a step alone",
                **ours(layer_sum, images, check_every=10**6, units=1),
            ),
            Contestant("the published loop, transcribed", as_published(surrogate, model, images)),
        ],
        rounds=rounds,
        device=device,
        setting={"network": name, "batch": batch, "size": 224},
    )


def integrated_race(name: str, batch: int, steps: int, rounds: int, device: str) -> dict:
    """Race a step of an attack on integrated gradients, at once and in chunks."""
    model, surrogate = network(name, device), smooth(name, device)
    images = torch.rand(batch, 3, 224, 224, device=device)
    others = []
    for title, at_once in (("at once", None), ("in chunks of one step", batch)):
        attack = InterpretationAttack(
            IntegratedGradients(model),
            attribute_kwargs={"n_steps": steps, "internal_batch_size": at_once},
            beta=BETA,
            **BOUNDS,
        )
        others.append(
            Contestant(
                f"captum_blackbox, {title}",
                goal=GOAL,
                **ours(attack, images, check_every=10**6, units=1),
            )
        )
    return race(
        "attack step, integrated gradients",
        Contestant("the three passes, once a step of IG", three_passes(surrogate, images, steps)),
        others,
        rounds=rounds,
        device=device,
        setting={"network": name, "batch": batch, "size": 224, "n_steps": steps},
    )


def memory_row(name: str, batch: int) -> dict:
    """Return peak memory beyond what was held before, in MB, for more and more steps of IG."""
    model, images = network(name, "cpu"), torch.rand(batch, 3, 224, 224)
    row: dict = {
        "work": "extra peak memory of a step on integrated gradients",
        "setting": {"network": name, "batch": batch, "size": 224},
        "unit": "MB",
        "forward": round(peak(lambda: model(images))),
    }
    for at_once in (batch, None):
        for steps in (4, 8, 16):
            attack = InterpretationAttack(
                IntegratedGradients(model),
                attribute_kwargs={"n_steps": steps, "internal_batch_size": at_once},
                **BOUNDS,
            )
            title = f"{steps} steps, {'at once' if at_once is None else 'in chunks of one'}"
            row[title] = round(peak(lambda a=attack: a.run(images, RADIUS, step_num=1, target=0)))
    print(row, flush=True)
    return row


def batching_race(name: str, batch: int, rounds: int, device: str) -> dict:
    """Race a batch against a loop over its images."""
    model = network(name, device)
    images = torch.rand(batch, 3, 224, 224, device=device)
    attack = InterpretationAttack(Saliency(model), **BOUNDS)
    settings = {"target": 0, "step_num": 2, "check_every": 2}

    def loop() -> object:
        return [attack.run(image, RADIUS, **settings) for image in images.split(1)]

    return race(
        "attack of a batch",
        Contestant("its images one by one", loop),
        [
            Contestant(
                "captum_blackbox, the batch",
                lambda: attack.run(images, RADIUS, **settings),
                goal=0.1 if torch.device(device).type == "cuda" else None,
                ours=True,
            )
        ],
        rounds=rounds,
        device=device,
        setting={"network": name, "batch": batch, "size": 224},
    )


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--ig-steps", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    warnings.simplefilter("ignore")
    rows = [gradient_race(each, given.batch, given.rounds, given.device) for each in given.networks]
    rows.append(
        integrated_race("squeezenet1_0", given.batch, given.ig_steps, given.rounds, given.device)
    )
    rows.append(batching_race("squeezenet1_0", max(4, given.batch), given.rounds, given.device))
    content = result("attack", given.device, rows, given.rounds)
    if given.device == "cpu":
        content["memory"] = [memory_row("squeezenet1_0", 2)]
    print(save("attack", given.device, content))


if __name__ == "__main__":
    main()
