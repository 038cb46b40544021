"""Small changes of the hardware's text, made by rule: what a slip of the pen does.

Constants one off, comparisons and operators swapped, conditions and choices inverted, statements
left out. Only what becomes hardware is changed: not messages, annotations, or the parts that a
component counts for the cost model.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from mutant import ROOT

__all__ = ["COMPONENTS", "Change", "changes"]

_AGREEMENT = "tests/hw/test_agreement.py"
_ARITHMETIC = "tests/hw/test_arithmetic.py"
_STAGES = "tests/hw/test_stream_stages.py::"
_MVU = "tests/hw/test_mvu.py"
_POOL = "tests/hw/test_pool.py::"
_WINDOW = "tests/hw/test_sliding_window.py"
_HOST = "tests/hw/test_link_host.py"

#: The quick tests of each file, those that find most first.
COMPONENTS: dict[str, tuple[str, ...]] = {
    "hw/accumulator.py": (_AGREEMENT, _MVU),
    "hw/agreement.py": (_AGREEMENT,),
    "hw/argmax.py": ("tests/hw/test_argmax.py",),
    "hw/carry_chain.py": (_AGREEMENT,),
    "hw/core.py": ("tests/hw/test_core.py", "tests/sim/test_verify.py"),
    "hw/counting.py": (_AGREEMENT,),
    "hw/fifo.py": (_STAGES + "TestStreamFIFO",),
    "hw/join.py": ("tests/hw/test_join.py",),
    "hw/layouts.py": ("tests/hw/test_layouts.py", _ARITHMETIC, _MVU),
    "hw/multi_threshold.py": ("tests/hw/test_multi_threshold.py",),
    "hw/mvu.py": (_MVU,),
    "hw/parallel_window.py": (
        _WINDOW + "::TestParallelWindow",
        _WINDOW + "::test_refuses_what_is_illegal_and_says_what_is_legal",
        _WINDOW + "::test_refuses_lanes_groups_and_granules_that_do_not_divide",
    ),
    "hw/pe_array.py": (_ARITHMETIC, _MVU),
    "hw/pipeline.py": (_ARITHMETIC,),
    "hw/plane_sum.py": ("tests/hw/test_plane_sum.py",),
    "hw/pool.py": (_POOL + "TestPoolUnit",),
    "hw/popcount.py": (_ARITHMETIC, _MVU),
    "hw/replay_buffer.py": (_STAGES + "TestReplayBuffer", _MVU),
    "hw/resize.py": ("tests/hw/test_resize.py",),
    "hw/rom.py": (_ARITHMETIC, _MVU),
    "hw/score.py": (_ARITHMETIC, _POOL + "TestScoreStage", _MVU),
    "hw/shared_counts.py": (_AGREEMENT,),
    "hw/skid.py": (_STAGES + "TestSkidBuffer",),
    "hw/sliding_window.py": (_WINDOW,),
    "hw/threshold.py": (_ARITHMETIC, _POOL + "TestThresholdStage"),
    "hw/threshold_stage.py": (_POOL + "TestThresholdStage", _POOL + "TestScoreStage"),
    "hw/width_converter.py": (_STAGES + "TestWidthConverter",),
    "hw/link/cobs.py": ("tests/hw/test_link_cobs.py", _HOST),
    "hw/link/frame_slots.py": (_HOST,),
    "hw/link/host_link.py": (_HOST,),
    "hw/link/protocol.py": (_HOST, "tests/hw/test_link_uart.py"),
    "hw/link/uart.py": ("tests/hw/test_link_uart.py",),
    "boards/top.py": ("tests/boards/test_top.py",),
}

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitXor: ast.BitAnd,
}
_SHAPED = {"Signal", "In", "Out"}
_CONDITIONS = {"If", "Elif"}


@dataclass(frozen=True)
class Change:
    """A change of one expression or statement.

    Attributes
    ----------
    file : str
    line : int
    old, new : str
        The lines that change and what becomes of them, each as one line.
    text : str
        The changed file.
    """

    file: str
    line: int
    old: str
    new: str
    text: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Name that outlives changes elsewhere in the file."""
        return self.file, self.old, self.new


def changes(file: str) -> list[Change]:
    """Return every change of a file, in the order of its lines."""
    source = (ROOT / file).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for node, written in _edits(ast.parse(source)):
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        top, bottom = starts[node.lineno - 1], starts[node.end_lineno]
        before = source[top : top + node.col_offset]
        after = source[starts[node.end_lineno - 1] + node.end_col_offset : bottom]
        new = before + written.encode() + after
        found.append(
            Change(
                file,
                node.lineno,
                " ".join(source[top:bottom].decode().split()),
                " ".join(new.decode().split()),
                (source[:top] + new + source[bottom:]).decode(),
            )
        )
    return sorted(found, key=lambda change: (change.line, change.old, change.new))


def _edits(tree: ast.Module) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Yield what can be replaced, and by what."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.endswith("_parts"):
            continue
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            continue
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Assign):
            yield from _inside(node)


def _inside(node: ast.AST, in_signal: bool = False) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Yield the edits of a node and all below it."""
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Assert | ast.Import | ast.ImportFrom):
        return
    if isinstance(node, ast.expr):
        yield from _of_expression(node, in_signal)
    if isinstance(node, ast.stmt):
        yield from _of_statement(node)
    in_signal = in_signal or (isinstance(node, ast.Call) and _called(node) in _SHAPED)
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "args", "slice") and (
            not isinstance(node, ast.Call | ast.Subscript)
        ):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _inside(child, in_signal)


def _called(node: ast.Call) -> str:
    """Return the last name of what is called."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _of_expression(node: ast.expr, in_signal: bool) -> Iterator[tuple[ast.expr, str]]:
    match node:
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            # A register that is wider than it need be does no harm.
            yield from ((node, f"({value + step})") for step in ((-1,) if in_signal else (-1, 1)))
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            for place, op in enumerate(ops):
                if type(op) in _COMPARISONS:
                    swapped: list[ast.cmpop] = [*ops]
                    swapped[place] = _COMPARISONS[type(op)]()
                    yield node, _written(ast.Compare(left, swapped, comparators))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            yield node, _written(ast.BinOp(left, _OPERATORS[type(op)](), right))
        case ast.UnaryOp(op=ast.Invert() | ast.Not(), operand=operand):
            yield node, _written(operand)
        case ast.BoolOp(op=op, values=values):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield node, _written(ast.BoolOp(other, values))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            yield node, _written(ast.IfExp(test, orelse, body))
        case ast.Call(args=[condition]) if _called(node) in _CONDITIONS:
            yield condition, _written(ast.UnaryOp(ast.Invert(), condition))
        case ast.Call(func=func, args=[condition, one, other_one]) if _called(node) == "Mux":
            yield node, _written(ast.Call(func, [condition, other_one, one], []))


def _of_statement(node: ast.stmt) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    match node:
        case ast.AugAssign(target=ast.Attribute(), value=ast.List(elts=elements)):
            yield from ((element, "[]") for element in elements)
        case ast.AugAssign(target=ast.Attribute()):
            yield node, "pass"
        case ast.Assign(targets=[ast.Attribute(attr="next")]):
            yield node, "pass"
        case ast.If(test=test):
            yield test, _written(ast.UnaryOp(ast.Not(), test))


def _written(node: ast.expr) -> str:
    return f"({ast.unparse(ast.fix_missing_locations(node))})"
