"""How far explanations move while the picture and its label stay: the paper's figure.

Gradient, DeepLIFT and integrated gradients of a network, attacked by top-k, mass centre and random
signs, on photographs that it classifies correctly; then another network as the judge, defences, and
surrogates. Long; stopped and started again it goes on where it was. The most important rows come
first, and the file is valid at any time: it says which rows it has.
"""

import argparse
import json
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from claims import fingerprint
from claims_data import WORK
from fragility_data import IG_STEPS, MODES, PUBLISHED, SHOWN, SUBJECTS, Job, Subject, jobs
from fragility_tables import DIFFERENCES, as_curves, orderings
from harness import RESULTS, SCHEMA, environment, write_json
from PIL import Image
from torch import Tensor

from captum_blackbox.fragility.curves import fragility_curves
from captum_blackbox.fragility.curves_result import MEASURES, FragilityCurves
from captum_blackbox.fragility.surrogate import DEFAULT_BETA
from captum_blackbox.fragility.transfer import TRANSFERRED
from captum_blackbox.report.fragility import fragility_png
from captum_blackbox.statistics.bootstrap import estimate

PER_IMAGE = (*SHOWN, "ssim", "success")
JUDGE = "MobileNet v2"


def run(job: Job, subject: Subject, work: Path, seed: int) -> FragilityCurves:
    """Attack, or read what an earlier run has done."""
    attack = subject.attack(job.method, **dict(job.settings))
    rows = slice(job.first, min(job.last, len(subject.images)))
    name = f"{job.group}-{job.name}-{job.radius}-{job.first}-{job.last}".replace(" ", "_")
    return fragility_curves(
        {job.name: attack},
        subject.images[rows],
        label=subject.labels[rows],
        modes=job.modes,
        radii=[job.radius / 255],
        k=subject.k,
        step_num=job.steps,
        step_size=job.step / 255,
        check_every=job.check_every,
        batch_size=subject.batch[job.method],
        transfer_to={JUDGE: subject.judge()} if job.transfer and subject.judge else None,
        resume=work / f"{name}.safetensors",
        seed=seed,
        show_progress=True,
    )


def rows_of(done: Sequence[tuple[Job, FragilityCurves]]) -> list[dict[str, Any]]:
    """Return a row for each group, name, objective, radius and judge; images are put together."""
    found: dict[tuple[Any, ...], list[tuple[Job, FragilityCurves]]] = {}
    for job, curves in done:
        for judge in (None, *curves.judges):
            for mode in curves.modes:
                key = (job.group, job.name, mode, job.radius, judge)
                found.setdefault(key, []).append((job, curves))
    return [_row(key, parts) for key, parts in found.items()]


def _row(key: tuple[Any, ...], parts: Sequence[tuple[Job, FragilityCurves]]) -> dict[str, Any]:
    group, name, mode, radius, judge = key
    job = parts[0][0]
    scores = {
        measure: torch.cat([
            each.scores(name, measure, mode=mode, radius=radius / 255, judge=judge)
            for _, each in parts
        ])
        for measure in (MEASURES if judge is None else TRANSFERRED)
    }  # fmt: skip
    known = {measure: each for measure, each in scores.items() if bool(each.isfinite().any())}
    moved = known.get("success", torch.ones(len(scores["intersection"]))) == 1
    walk = {"steps": job.steps, "step": job.step, "check_every": job.check_every}
    return {
        "group": group,
        "name": name,
        "method": job.method,
        "mode": mode,
        "radius": radius,
        "judge": judge,
        "images": len(scores["intersection"]),
        "walk": {"draws": "one that keeps the label, of at most 16"} if mode == "random" else walk,
        "means": _means(known),
        "moved": _means({name: each[moved] for name, each in known.items() if name in SHOWN}),
        "values": {
            measure: [_rounded(value) for value in each.tolist()]
            for measure, each in known.items()
            if measure in PER_IMAGE
        },
    }


def _means(scores: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    return {
        measure: {key: _rounded(value) for key, value in asdict(estimate(each)).items()}
        for measure, each in scores.items()
    }


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def record(
    network: str,
    plan: argparse.Namespace,
    started: Mapping[str, Any],
    subject: Subject,
    done: Sequence[tuple[Job, FragilityCurves]],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Return the content of the file."""
    rows = rows_of(done)
    return {
        "schema": SCHEMA,
        "suite": f"fragility-{network}",
        "environment": dict(started),
        "settings": {
            "budget": plan.budget,
            "seed": plan.seed,
            "k": subject.k,
            "radius": "of 255, where a pixel goes from 0 to 255; largest change of a pixel",
            "integrated gradients": {"steps": IG_STEPS, "method": "riemann_right"},
            "baseline": "the mean image, 0 for the network",
            "beta": f"{DEFAULT_BETA}, unless a row says otherwise",
            "jobs": [asdict(job) | {"settings": _plain(job)} for job in jobs(network, plan.budget)],
        },
        "complete": len(done) == len(jobs(network, plan.budget)),
        "data": {**subject.facts, "count": len(subject.images),
                 "sha256": fingerprint([subject.images, subject.labels])},
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "published": {
            "source": "Ghorbani, Abid, Zou, AAAI 2019, fig. 3, read off the picture",
            "values": {
                measure: {
                    name: {str(radius): dict(zip(MODES, each, strict=True))
                           for radius, each in radii.items()}
                    for name, radii in methods.items()
                }
                for measure, methods in PUBLISHED.items()
            },
            "differences": list(DIFFERENCES[network]),
        },
        "orderings": orderings(rows),
        "rows": rows,
        "failures": [asdict(each) for _, curves in done for each in curves.failures],
    }  # fmt: skip


def _plain(job: Job) -> dict[str, Any]:
    return {key: value if isinstance(value, float) else str(value) for key, value in job.settings}


def main() -> None:
    """Measure one network and write its results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=list(SUBJECTS), required=True)
    parser.add_argument("--budget", choices=("quick", "decisions", "paper"), default="decisions")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--draw", action="store_true", help="only draw what is measured")
    parser.add_argument("--out", type=Path, default=RESULTS)
    plan = parser.parse_args()
    torch.set_num_threads(plan.threads)
    warnings.simplefilter("ignore")
    suffix = "" if plan.budget == "decisions" else f"-{plan.budget}"
    path = plan.out / f"fragility-{plan.network}{suffix}.json"
    if not plan.draw:
        measure(plan, path)
    print(draw(path))


def measure(plan: argparse.Namespace, path: Path) -> None:
    """Run what is not done, and write the file after each job."""
    started = environment(plan.device)
    todo = jobs(plan.network, plan.budget)
    subject = SUBJECTS[plan.network](max(job.last for job in todo), plan.seed, plan.device)
    kind = torch.device(plan.device).type
    work = WORK / f"fragility-{plan.network}-{plan.budget}-{kind}-{plan.seed}"
    done: list[tuple[Job, FragilityCurves]] = []
    seconds: dict[str, float] = {}
    for number, job in enumerate(todo, 1):
        start = time.process_time()
        done.append((job, run(job, subject, work, plan.seed)))
        label = f"{job.group}, {job.name}, radius {job.radius}, images {job.first} to {job.last}"
        seconds[label] = time.process_time() - start
        print(f"{number} of {len(todo)}: {label}, {seconds[label]:.0f} s", flush=True)
        write_json(path, record(plan.network, plan, started, subject, done, seconds))


def draw(path: Path) -> Path:
    """Draw the curves of a file of results beside it."""
    found = json.loads(path.read_text())
    published = PUBLISHED if found["suite"] == "fragility-squeezenet" else None
    picture = path.parent / "figures" / f"{path.stem}.png"
    picture.parent.mkdir(exist_ok=True)
    drawn = BytesIO(fragility_png(as_curves(found["rows"]), published=published))
    Image.open(drawn).convert("RGB").quantize(64).save(picture, optimize=True)
    return picture


if __name__ == "__main__":
    main()
