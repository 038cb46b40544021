"""The model of a large core in short functions and several C++ files, for compilers' sake.

``write_cxxrtl`` puts all logic of a flat design into one function and all that registers do into
two more. What a compiler does to a function takes time by the square of its length: half an hour
for some megabytes. In short functions it takes minutes, and less in several files that are compiled
side by side.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

__all__ = ["PART", "Model", "cut"]

#: Bytes of C++ in a file, about. Each takes the header in anew, some seconds of a large core.
PART = 600_000

#: And in a function.
FUNCTION = 40_000

#: Where the class begins and three of its functions, the last of them in the header.
CLASS = "struct p_top : public module {\n"
RESET = "void p_top::reset() {\n"
EVAL = "bool p_top::eval(performer *performer) {\n"
COMMIT = "\ttemplate<class ObserverT>\n\tbool commit(ObserverT &observer) {\n"

#: What a part begins with.
HEAD = '#include "design.h"\n\nusing namespace cxxrtl_yosys;\n\nnamespace cxxrtl_design {\n'

#: A wire that lives during an evaluation only.
WIRE = re.compile(r"\tvalue<\d+> (\w+);\n")

#: A flag that all statements may use: whether the clock rises, whether all has settled.
FLAG = re.compile(r"\tbool (\w+) = .*;\n")

#: A place in a memory, or what one starts with: the next few statements use it.
SHARED = re.compile(r"\t(?:auto|static const value<\d+>) (\w+)")

NAME = re.compile(r"\w+")


@dataclass(frozen=True)
class Model:
    """A design in C++.

    Attributes
    ----------
    header : str
        ``design.h``: class ``cxxrtl_design::p_top``.
    source : str
        ``design.cc``, which the driver includes.
    parts : tuple of str
        Files that are compiled beside the driver, by their texts; none for a small design.
    """

    header: str
    source: str
    parts: tuple[str, ...] = ()


def cut(model: Model, part: int = PART, function: int = FUNCTION) -> Model:
    """Return `model` with its statements in functions, and those in files.

    A model of fewer than two parts stays as it is.

    Parameters
    ----------
    model : Model
        Without parts.
    part, function : int
        Bytes in a file and in a function, about.
    """
    if len(model.source) < 2 * part:
        return model
    source, header = model.source, model.header
    declared: list[str] = []
    defined: list[str] = []

    def calls(name: str, types: list[str], given: list[str], groups: list[list[str]]) -> str:
        """Make a function of each group; return the calls of all."""
        parameters = ", ".join(f"{kind}{word}" for kind, word in zip(types, given, strict=True))
        for n, group in enumerate(groups):
            declared.append(f"\tvoid {name}_{n}({parameters});\n")
            defined.append(f"void p_top::{name}_{n}({parameters}) {{\n{''.join(group)}}}\n")
        return "".join(f"\t{name}_{n}({', '.join(given)});\n" for n in range(len(groups)))

    body = _between(source, RESET, "}\n")
    groups = _groups(_statements(body, "\t"), function)
    source = source.replace(body, calls("reset", [], [], groups), 1)

    body = _between(source, EVAL, "}\n")
    *statements, end = _statements(body, "\t")
    flags = {m[1]: text for text in statements if (m := FLAG.fullmatch(text))}
    wires = {m[1]: text for text in statements if (m := WIRE.fullmatch(text))}
    known = {*flags.values(), *wires.values()}
    groups = _groups([text for text in statements if text not in known], function)
    shared, inner = _owners(wires, groups)
    # With debug information the class has some of them already, for the time between cycles.
    declared += [wires[name] for name in shared if f" {name};" not in header]
    called = calls(
        "eval",
        [*("bool &" for _ in flags), "performer *"],
        [*flags, "performer"],
        [[*inner[n], *group] for n, group in enumerate(groups)],
    )
    source = source.replace(body, f"{''.join(flags.values())}{called}{end}", 1)

    body = _between(header, COMMIT, "\t}\n")
    start, *statements, end = _statements(body, "\t\t")
    groups = _groups(statements, function)
    declared += [
        "\ttemplate<class ObserverT> __attribute__((noinline))\n"
        f"\tbool commit_{n}(ObserverT &observer) {{\n{''.join([start, *group, end])}\t}}\n"
        for n, group in enumerate(groups)
    ]
    called = "".join(f"\t\tif (commit_{n}(observer)) changed = true;\n" for n in range(len(groups)))
    header = header.replace(body, f"{start}{called}{end}", 1)

    header = header.replace(CLASS, "".join([CLASS, *declared]), 1)
    parts = ["".join(group) for group in _groups(defined, part)]
    return Model(header, source, tuple(f"{HEAD}{text}}}\n" for text in parts))


def _between(text: str, start: str, end: str) -> str:
    """Return the lines after the first `start` up to the next line `end`."""
    return text.partition(start)[2].partition(f"\n{end}")[0] + "\n"


def _statements(body: str, indent: str) -> list[str]:
    """Return the statements of `body`, whole lines each, without what explains them."""
    statements: list[str] = []
    for line in body.splitlines(keepends=True):
        if line.lstrip().startswith("//"):
            continue
        if line.startswith((f"{indent}\t", f"{indent}}}")):
            statements[-1] += line
        else:
            statements.append(line)
    return statements


def _groups(texts: list[str], size: int) -> list[list[str]]:
    """Put texts together up to some `size`, but those that use what is `SHARED` always."""
    last: dict[str, int] = {}
    for place, text in enumerate(texts):
        for name in NAME.findall(text):
            last[name] = place
    groups: list[list[str]] = [[]]
    length, used = 0, -1
    for place, text in enumerate(texts):
        if length >= size and place > used:
            groups.append([])
            length = 0
        if shared := SHARED.match(text):
            used = max(used, last[shared[1]])
        groups[-1].append(text)
        length += len(text)
    return groups


def _owners(
    wires: dict[str, str], groups: list[list[str]]
) -> tuple[list[str], dict[int, list[str]]]:
    """Return by name what several groups use, and declarations of what one does."""
    users: dict[str, list[int]] = {name: [] for name in wires}
    for number, group in enumerate(groups):
        for name in {*NAME.findall("".join(group))} & wires.keys():
            users[name].append(number)
    shared: list[str] = []
    inner: dict[int, list[str]] = defaultdict(list)
    for name, numbers in users.items():
        if len(numbers) > 1:
            shared.append(name)
        elif numbers:
            inner[numbers[0]].append(wires[name])
    return shared, inner
