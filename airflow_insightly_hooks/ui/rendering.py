"""Makes pages from templates. Everything is escaped. The browser shows times in the person's time zone."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from airflow_insightly_hooks.core.dates import iso_time
from airflow_insightly_hooks.core.plurals import counted
from airflow_insightly_hooks.ui.addresses import Addresses
from airflow_insightly_hooks.version import __version__

__all__ = ["FOLDER", "Renderer", "RendererDep"]

FOLDER = Path(__file__).parent


class Renderer:
    """Makes the answer to a request from a template.

    :param request: the request.
    """

    def __init__(self, request: Request) -> None:
        self.addresses = Addresses(request)

    def __call__(
        self, template: str, values: Mapping[str, Any] | None = None, /, *, status: int = 200, **more: Any
    ) -> HTMLResponse:
        """Return a page.

        :param template: the name of the template's file in ``templates/``.
        :param values: the template's variables, beside ``url`` (``Addresses``). ``more`` overrides them.
        :param status: the HTTP status.
        """
        text = (
            _environment()
            .get_template(template)
            .render(url=self.addresses, version=__version__, **{**(values or {}), **more})
        )
        # JSON can hold half a surrogate pair, but UTF-8 can't. It becomes a question mark.
        return HTMLResponse(text.encode(errors="replace"), status)


async def _renderer(request: Request) -> Renderer:
    return Renderer(request)


RendererDep = Annotated[Renderer, Depends(_renderer)]
"""A route's parameter: the renderer for its answer."""


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"time": _time, "count": _count, "seconds": _seconds, "plural": counted}
    return environment


def _time(value: datetime | None) -> Markup:
    """Return a time in UTC. The script shows it in the person's time zone, and hovering shows UTC."""
    if value is None:
        return Markup("—")
    utc = value.astimezone(timezone.utc)
    shown = f"{utc:%Y-%m-%d %H:%M:%S} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(iso_time(utc), shown, shown)


def _count(value: float | None) -> str:
    """Return a number with separators for thousands, or a dash for ``None``."""
    return "—" if value is None else f"{value:,}"


def _seconds(value: float | timedelta | None) -> str:
    """Return a duration with its unit, or a dash for ``None``."""
    if value is None:
        return "—"
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 60 else f"{seconds / 60:.0f} min"
