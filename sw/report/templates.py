"""The pages' templates, which lie beside this file."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["environment"]


def environment() -> Environment:
    """Return what finds and fills the templates; a name that a page does not give is an error."""
    return Environment(
        loader=PackageLoader("xnorflow.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
