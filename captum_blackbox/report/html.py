"""What all pages share: their templates, and how numbers and pictures are written in them."""

import base64
from collections.abc import Sequence
from dataclasses import astuple
from importlib import resources

from jinja2 import Environment, FunctionLoader, StrictUndefined

from captum_blackbox.report.comparison import FEW_IMAGES, Difference
from captum_blackbox.report.figure import method_colors


def filled(template: str, page: object, methods: Sequence[str]) -> str:
    """Return a template of this package filled with ``page``, all text escaped.

    Args:
        template: Name of the file.
        page: What the template calls ``page``.
        methods: Names of methods, for their colours.
    """
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["png"] = _data_uri
    environment.filters["number"] = number
    environment.filters["percent"] = percent
    environment.filters["count"] = count
    environment.globals["verdict"] = verdict
    colors = method_colors(methods)
    return environment.get_template(template).render(page=page, colors=colors)


def _template(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def number(value: float | None, digits: int = 3) -> str:
    """Return a number as the page prints it; a dash for ``None``.

    Example:
        >>> number(-0.12345), number(None), number(-0.00001)
        ('−0.123', '–', '0.000')
    """
    if value is None:
        return "–"
    text = f"{value:.{digits}f}"
    negative = text.startswith("-") and float(text) != 0
    return ("−" if negative else "") + text.lstrip("-")


def verdict(difference: Difference, lower_is_better: bool, images: int) -> str | None:
    """Return ``"better"`` or ``"worse"`` where enough images and the interval as printed say so.

    Example:
        >>> verdict(Difference(-0.1, -0.2, -0.05), True, 12)
        'better'
        >>> verdict(Difference(-0.1, -0.2, -0.05), True, 9) is None
        True
        >>> verdict(Difference(-0.1, -0.2, -0.0004), True, 12) is None
        True
    """
    printed = Difference(*(round(each, 3) for each in astuple(difference)))
    if images < FEW_IMAGES or not printed.excludes_zero:
        return None
    return "better" if (printed.high < 0) == lower_is_better else "worse"


def count(value: int) -> str:
    r"""Return a number of things with narrow no-break spaces between its thousands.

    Example:
        >>> count(12345)
        '12\u202f345'
    """
    return f"{value:,}".replace(",", "\u202f")


def percent(value: float | None) -> str:
    r"""Return a share as the page prints it.

    Example:
        >>> percent(0.956), percent(None)
        ('95.6\xa0%', '–')
    """
    return "–" if value is None else f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
