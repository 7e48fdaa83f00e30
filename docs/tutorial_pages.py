"""Write a page for each tutorial: `make docs` shows its text and code, `make pages` runs it, too.

    python docs/tutorial_pages.py [--run]

A page that shows what a run printed and drew is kept until its tutorial changes.
"""

import argparse
import contextlib
import hashlib
import io
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TUTORIALS = HERE.parent / "tutorials"
PAGES = HERE / "tutorials"

Run = Callable[[str], tuple[str, list[Path]]]
"""Code → what it printed, and the pictures that it drew."""


def main(arguments: list[str] | None = None) -> int:
    """Write the pages, and the list of them; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--run", action="store_true", help="run the tutorials, and show the results"
    )
    run = parser.parse_args(arguments).run
    PAGES.mkdir(exist_ok=True)
    sources = sorted(TUTORIALS.glob("[0-9]*.py"))
    names = {source.stem for source in sources}
    for old in PAGES.iterdir():
        if old.stem not in names:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    for source in sources:
        started = time.perf_counter()
        if write_page(source, PAGES, run=run):
            print(f"{source.name}: {time.perf_counter() - started:.0f} s")
    listed = "\n".join(sorted(names))
    (PAGES / "index.md").write_text(
        "# Tutorials\n\nEach is a Python file of `tutorials/` that runs as it is; the tests run "
        f"it, too.\n\n```{{toctree}}\n:maxdepth: 1\n\n{listed}\n```\n",
        encoding="utf-8",
    )
    return 0


def write_page(source: Path, folder: Path, *, run: bool) -> bool:
    """Write the page of one tutorial, unless one is there that shows more.

    Args:
        source: The tutorial, in percent format.
        folder: Where its page goes, and a folder with its pictures.
        run: Whether to run it.

    Returns:
        Whether the page was written.
    """
    page = folder / f"{source.stem}.md"
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    mark = f"% run of {digest}\n"
    if not run:
        if page.is_file() and page.read_text(encoding="utf-8").startswith(mark):
            return False
        page.write_text(_page(source, _not_run), encoding="utf-8")
        return True
    drawn = folder / source.stem
    shutil.rmtree(drawn, ignore_errors=True)
    drawn.mkdir()
    page.write_text(mark + _page(source, _runner(source, drawn)), encoding="utf-8")
    return True


def cells(text: str) -> Iterator[tuple[bool, str]]:
    r"""Yield whether a cell is code, and the code, or the Markdown without its comment signs.

    Example:
        >>> list(cells("# %% [markdown]\n# # Title\n\n# %%\nprint(1)\n"))
        [(False, '# Title'), (True, 'print(1)')]
    """
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        kind, _, body = part.partition("\n")
        if "[markdown]" in kind:
            body = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        yield "[markdown]" not in kind, body.strip("\n")


def _page(source: Path, run: Run) -> str:
    parts = []
    for is_code, text in cells(source.read_text(encoding="utf-8")):
        if not is_code:
            parts.append(text)
            continue
        parts.append(_fenced("python", text))
        printed, pictures = run(text)
        if printed.strip():
            parts.append(_fenced("text", printed.rstrip()))
        parts += [f"![{each.stem}]({each.parent.name}/{each.name})" for each in pictures]
    return "\n\n".join(parts) + "\n"


def _fenced(language: str, text: str) -> str:
    fence = "`" * 3
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text}\n{fence}"


def _not_run(code: str) -> tuple[str, list[Path]]:
    return "", []


def _runner(source: Path, drawn: Path) -> Run:
    """Return what runs the cells of a tutorial, one after the other, with the names they share."""
    os.environ["TUTORIAL_OUT"] = str(drawn)
    names: dict[str, Any] = {"__name__": "__main__", "__file__": str(source)}

    def run(code: str) -> tuple[str, list[Path]]:
        before = set(drawn.glob("*.png"))
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, source.name, "exec"), names)  # noqa: S102 - our own tutorials
        new = set(drawn.glob("*.png")) - before
        return printed.getvalue(), sorted(new, key=lambda path: (path.stat().st_mtime_ns, path))

    return run


if __name__ == "__main__":
    sys.exit(main())
