"""Reports, estimates and explored points side by side.

In the order in which a comparison is made:

- :mod:`~xnorflow.compare.reports`: what was built, read from files and checked,
- :mod:`~xnorflow.compare.estimates`: models that were not built, planned for boards,
- :mod:`~xnorflow.compare.table`: rows, best values and differences,
- :mod:`~xnorflow.compare.output`: CSV, Markdown and JSON; :mod:`~xnorflow.compare.page`: HTML.
"""

from __future__ import annotations

from xnorflow.compare.estimates import Wanted, estimated
from xnorflow.compare.reports import is_report_file, read_reports
from xnorflow.compare.table import Cell, Column, Comparison, Row, compare, labelled

__all__ = [
    "Cell",
    "Column",
    "Comparison",
    "Row",
    "Wanted",
    "compare",
    "estimated",
    "is_report_file",
    "labelled",
    "read_reports",
]
