"""The HTML report of a build: one self-contained page that needs no network and no script."""

from xnorflow.report.page import Digit, render, write

__all__ = ["Digit", "render", "write"]
