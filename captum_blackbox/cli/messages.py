"""What a command tells its user: errors and warnings as one plain message each."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer

from captum_blackbox.errors import CaptumBlackboxError, ExplanationWarning


@contextmanager
def plain_messages() -> Iterator[None]:
    """Turn our errors into a message and exit code 1, and our warnings into a message.

    Other errors are not expected, so they keep their traceback.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=ExplanationWarning)
        show_other = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, ExplanationWarning):
                say(f"warning: {message}")
            else:
                show_other(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        try:
            yield
        except CaptumBlackboxError as error:
            say(f"error: {error}")
            raise typer.Exit(1) from error


def say(text: str) -> None:
    """Tell how far the work is; on stderr, with the progress bars."""
    typer.echo(text, err=True)
