"""``captum-blackbox attack``: the network's explanations, attacked cell by cell."""

import functools
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn
from tqdm.auto import tqdm

from captum_blackbox.cli import results as files
from captum_blackbox.cli.attack_cells import Attacked, Cell, CellNumbers, KeptCells
from captum_blackbox.cli.attack_methods import Attackers
from captum_blackbox.cli.attack_options import METHODS, AttackOptions
from captum_blackbox.cli.attack_presentation import write_attack
from captum_blackbox.cli.images import Preparation
from captum_blackbox.cli.messages import say
from captum_blackbox.cli.opened_model import OpenedModel, open_model
from captum_blackbox.cli.options import ModelOptions, as_typed
from captum_blackbox.cli.subjects import subject_of
from captum_blackbox.concepts.image_loading import UNREADABLE
from captum_blackbox.errors import ArtifactError, InputError

# Images on one graph, which takes several times the memory of a gradient.
_AT_ONCE = {"cpu": 8, "cuda": 16}


def run_attack(
    options: ModelOptions,
    attack: AttackOptions,
    *,
    images: Sequence[Path] | None,
    limit: int,
    out: Path,
) -> None:
    """Attack explanations, write everything, and say where the page is."""
    files.check_folder(out)
    opened = open_model(options)
    _check_open(opened)
    subject, skipped, left = subject_of(opened, images, limit)
    network = opened.network(subject.inputs[:1], what="gradients of explanations")
    region = None if attack.region is None else read_region(attack.region, opened.preparation)
    attackers = Attackers(
        network,
        opened.preparation,
        subject.inputs[:1].to(opened.device),
        attack.passes,
        _AT_ONCE[opened.device.type],
        attack.beta,
    )
    typed = as_typed(options, attack, images=images, limit=limit)
    passes = typed.pop("--passes")
    kept = KeptCells.of(out, attack, subject.inputs, region, attackers, _source(options.model))
    attacked = attack_everything(attack, kept)
    page = write_attack(
        out,
        subject,
        attacked,
        attack,
        title=f"How fragile are explanations of {opened.short_name}?",
        skipped=skipped,
        settings={
            "command": "attack",
            **typed,
            "--methods": ",".join(attack.methods),
            "--modes": ",".join(attack.modes),
            "--radii": ",".join(radius.text for radius in attack.radii),
            "passes": f"{passes}, of integrated gradients and SmoothGrad",
            "images": f"{len(subject.names)} attacked, {left} left out",
            "preparation": str(opened.preparation),
            "device": str(opened.device),
        },
    )
    say(f"the page is {page.resolve()}")


def attack_everything(options: AttackOptions, kept: KeptCells) -> Attacked:
    """Do every cell that is not done yet; a method that cannot be attacked is left out.

    Raises:
        InputError: No method can be attacked.
    """
    found: dict[Cell, CellNumbers] = {}
    left_out: dict[str, str] = {}
    cells = [(mode, radius) for mode in options.modes for radius in options.radii]
    again = 0
    with tqdm(
        total=len(options.methods) * len(cells) * len(kept.inputs), desc="attacking", unit="image"
    ) as bar:
        for method in options.methods:
            make = functools.cache(functools.partial(kept.attackers.attack, method))
            for number, (mode, radius) in enumerate(cells):
                cell = Cell(method, mode, radius)
                bar.set_postfix_str(f"{method} {mode} {radius.text}")
                done = kept.found(cell)
                if done is not None:
                    again += 1
                    bar.update(len(kept.inputs))
                    found[cell] = done
                    continue
                try:
                    found[cell] = kept.made(cell, make(), bar.update)
                except ArtifactError:  # the disk is full
                    raise
                except Exception as error:  # of the user's network, Captum, torch or ours
                    left_out[METHODS[method]] = str(error)
                    say(f"{METHODS[method]} is left out: {error}")
                    bar.update(len(kept.inputs) * (len(cells) - number - 1))
                    break
    if again:
        say(f"{again} of {len(found)} attacks were done before, and are used again")
    left = {cell: each for cell, each in found.items() if METHODS[cell.method] not in left_out}
    if not left:
        raise InputError(
            f"no explanation can be attacked; {'; '.join(f'{k}: {v}' for k, v in left_out.items())}"
        )
    return Attacked(left, kept, left_out)


def read_region(path: Path, preparation: Preparation) -> Tensor:
    """Read a mask ``(H, W)`` of 0 and 1 as the network sees its images: white is 1.

    Raises:
        InputError: It is no picture, or has nothing white.
    """
    try:
        picture = preparation.picture(path)
    except UNREADABLE as error:
        raise InputError(f"--region {str(path)!r} is not an image that can be read") from error
    region = (picture.mean(0) > 0.5).float()
    if not bool(region.any()):
        raise InputError(
            f"--region {str(path)!r} has nothing white where the network looks (resized and "
            "cropped like the images); paint white where importance is to go"
        )
    return region


def _check_open(opened: OpenedModel) -> None:
    if not isinstance(opened.function, nn.Module):
        raise InputError(
            f"an attack follows gradients through a network, but {opened.spec} is a "
            f"{type(opened.function).__name__} that can only be called; teach a student first "
            "(captum-blackbox distill), and attack the student in Python, which the black box "
            "judges: InterpretationAttack(DistilledLayerSumGradCAM.load(path, box, student))"
        )


def _source(spec: str) -> Path | None:
    """Return the user's file that makes the network, if there is one."""
    file, _, _ = spec.rpartition(":")
    return Path(file) if file.endswith(".py") else None
