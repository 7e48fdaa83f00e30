"""How fast the work is beside its floor and its peers, as Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from result_files import read, table

SPEED_SUITES = (
    "grad_cam",
    "deletion",
    "distillation",
    "patterns",
    "dissection",
    "attack",
    "importing",
)
_ABOUT = ("work", "setting", "unit")


def speed() -> str:
    """Return one row for each thing of ours that was timed."""
    found = _found()
    rows = [line for each in found for row in each["rows"] for line in _speed_lines(row)]
    header = ["work", "floor = 1", "ours [quartiles]", "goal", "others", ""]
    parts = [table(header, rows), *(_memory(each) for each in found if each.get("memory"))]
    return "\n\n".join([*parts, _measured_on(found)])


def goals() -> str:
    """Return a row a piece of work: the best and the worst of its ratios, and how many are met."""
    kinds: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in (row for each in _found() for row in each["rows"]):
        work = row["work"].split(",")[0]
        for each in row["contestants"]:
            if each.get("ours") and each["goal"] is not None:
                kinds.setdefault((work, row["floor"]), []).append(each)
    rows = []
    for (work, floor), ours in kinds.items():
        ratios = sorted(each["ratio"] for each in ours)
        met = sum(_is_met(each) for each in ours)
        spread = f"{ratios[0]:.2f}" + (f" … {ratios[-1]:.2f}" if len(ratios) > 1 else "")
        rows.append([work, floor, spread, f"{met} of {len(ours)}"])
    header = ["work", "floor = 1", "time, as a multiple of the floor", "goals met"]
    return table(header, rows)


def _found() -> list[dict[str, Any]]:
    return [each for suite in SPEED_SUITES for each in read(f"{suite}--*.json")]


def _is_met(each: Mapping[str, Any]) -> bool:
    return round(each["ratio"], 2) <= each["goal"]


def _speed_lines(row: Mapping[str, Any]) -> Iterator[list[str]]:
    shown = ("network", "layer", "student", "batch", "size")
    setting = ", ".join(
        str(row["setting"][key])
        if key in ("network", "layer", "student")
        else f"{key} {row['setting'][key]}"
        for key in shown
        if key in row["setting"]
    )
    peers = [each for each in row["contestants"] if not each.get("ours")]
    others = " · ".join(f"{each['name']} {_ratio(each)}" for each in peers) or "–"
    for each in row["contestants"]:
        if each.get("ours"):
            low, high = each["quartiles"]
            yield [
                f"{row['work']}: {setting}" if setting else row["work"],
                row["floor"],
                f"{each['name'].removeprefix('captum_blackbox').lstrip(' ,')} "
                f"**{each['ratio']:.2f}** [{low:.2f}, {high:.2f}]",
                "–" if each["goal"] is None else f"≤ {each['goal']:.2f}",
                others,
                _verdict(each, peers),
            ]


def _memory(suite: Mapping[str, Any]) -> str:
    header = ["memory beyond what was held, MB", "one forward pass", "ours", "goal", "others"]
    rows = []
    for row in suite["memory"]:
        setting = ", ".join(str(value) for value in row["setting"].values())
        if "goal" not in row:
            ours = {key: n for key, n in row.items() if key not in {*_ABOUT, "forward"}}
            for key, number in ours.items():
                work = f"{row['work']}{'' if key == 'dissect' else f', {key}'}: {setting}"
                rows.append([work, str(row["forward"]), f"**{number}**", "–", "–"])
            continue
        for kind in ("positive", "all regimes"):
            verdict = "met" if row[kind] <= row["goal"] else "**missed**"
            rows.append(
                [
                    f"{row['work']}, {kind}: {setting}",
                    str(row["forward"]),
                    f"**{row[kind]}**, and {row[f'{kind}, accumulators and patterns']} held",
                    f"≤ {row['goal']}, {verdict}",
                    f"im2col {row['im2col without accumulators']}",
                ]
            )
    return table(header, rows)


def _ratio(each: Mapping[str, Any]) -> str:
    return "could not run" if "unavailable" in each else f"{each['ratio']:.2f}"


def _verdict(ours: Mapping[str, Any], peers: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    if ours["goal"] is not None:
        parts.append("goal met" if _is_met(ours) else "**goal missed**")
    faster = [each["name"] for each in peers if each.get("ratio", ours["ratio"]) < ours["ratio"]]
    parts += [f"**slower than {name}**" for name in faster]
    return ", ".join(parts)


def _measured_on(found: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for each in found:
        where, packages = each["environment"], each["environment"]["packages"]
        versions = ", ".join(f"{name} {number}" for name, number in packages.items() if number)
        lines.append(
            f"{each['clock']}, {where['device']}, threads: {where['threads']}, Python "
            f"{where['python']}, {versions}, {where['date']}"
        )
    return "  \n".join(dict.fromkeys(lines))
