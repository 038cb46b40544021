"""Board declarations, clock generation and the build flow."""

from xnorflow.boards.board import Board, load, names

__all__ = ["Board", "load", "names"]
