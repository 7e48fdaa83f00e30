"""A step of distillation against the query and the student's step, written by hand."""

import itertools
import warnings
from collections.abc import Callable

import torch
from harness import Contestant, arguments, race, result, save
from torch import Tensor, nn
from torch.nn import functional as F

from captum_blackbox import BlackBox
from captum_blackbox.demo import load_demo_network
from captum_blackbox.student import distill, student_network

BATCH = 64
CLASSES = 10
TEMPERATURE = 4.0
GOAL = 1.10


def by_hand(
    network: nn.Module | None, images: Tensor, answers: Tensor, steps: int
) -> Callable[[], object]:
    """Return the floor: query, forward, backward, Adam; without a network the answers are known."""
    student = student_network("small_cnn", CLASSES).to(images.device).train()
    optimizer = torch.optim.Adam(student.parameters())

    def call() -> None:
        parts = itertools.cycle(zip(images.split(BATCH), answers.split(BATCH), strict=True))
        for batch, known in itertools.islice(parts, steps):
            if network is not None:
                with torch.no_grad():
                    known = network(batch)
            scores = F.log_softmax(student(batch) / TEMPERATURE, 1)
            wanted = F.softmax(known / TEMPERATURE, 1)
            loss = F.kl_div(scores, wanted, reduction="batchmean") * TEMPERATURE**2
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return call


def distilled(box: BlackBox, images: Tensor, epochs: int) -> Callable[[], object]:
    """Return ``distill`` for some epochs, with a new student each time."""

    def call() -> object:
        return distill(
            box,
            student_network("small_cnn", CLASSES).to(images.device),
            images,
            epochs=epochs,
            batch_size=BATCH,
            temperature=TEMPERATURE,
            min_fidelity=0.0,
            device=images.device,
            show_progress=False,
        )

    return call


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=4)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    network = load_demo_network(given.device)
    images = torch.rand(given.images, 3, given.size, given.size, device=given.device)
    with torch.no_grad():
        answers = network(images)
    steps = -(-given.images // BATCH)
    more = (given.epochs - 1) * steps  # steps of a long run that a run of one epoch has not

    def ours(name: str, box: BlackBox, goal: float | None) -> Contestant:
        # A run of one epoch is subtracted: what is left are the steps, without the fixed costs.
        long, short = distilled(box, images, given.epochs), distilled(box, images, 1)
        return Contestant(name, long, units=more, without=short, goal=goal, ours=True)

    def plain() -> BlackBox:
        return BlackBox(network, output="logits")

    def cached() -> BlackBox:
        return BlackBox(network, output="logits", cache=":memory:")

    setting = {
        "network": "demo",
        "student": "small_cnn",
        "batch": BATCH,
        "size": given.size,
    }
    fixed = Contestant(
        "one epoch, fixed costs included",
        distilled(plain(), images, 1),
        units=steps,
        ours=True,
    )
    rows = [
        race(
            "distillation step",
            Contestant("query + student step", by_hand(network, images, answers, more), units=more),
            [
                ours("captum_blackbox distill", plain(), GOAL),
                ours("captum_blackbox distill, answers in a cache", cached(), None),
                fixed,
            ],
            rounds=given.rounds,
            device=given.device,
            setting=setting,
        ),
        race(
            "distillation step, answers known",
            Contestant("student step", by_hand(None, images, answers, more), units=more),
            [ours("captum_blackbox distill, answers in a cache", cached(), GOAL)],
            rounds=given.rounds,
            device=given.device,
            setting=setting,
        ),
    ]
    content = result("distillation", given.device, rows, given.rounds)
    print(save("distillation", given.device, content))


if __name__ == "__main__":
    main()
