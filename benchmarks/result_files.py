"""Results read back from their files, and tables of them in Markdown."""

import json
from collections.abc import Sequence
from typing import Any

from harness import RESULTS


def read(pattern: str) -> list[dict[str, Any]]:
    """Return the results whose file name fits."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob(pattern))]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
