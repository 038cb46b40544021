"""Print what the tests covered, package by package: ``python tests/coverage FOLDER``.

The folder holds ``lines.json``, coverage.py's report, and the files of the plugin `toggles`. The
exit status is 1 if less of a package was covered than `LEAST` says.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

from toggles import Seen

#: Percentage of lines and branches that each package must reach; most lie well above.
LEAST = 80

#: Needs torch, which the environment of the quick tests has not; shown, but not held to `LEAST`.
FREE = {"sw/train"}

#: Folders of the repository, as the packages are called in an installation.
FOLDERS = {"hw": "hw", "sim": "sim", "boards": "boards", "models": "models"}


def package(file: str) -> str:
    """Return the folder of a covered file: ``hw/link`` of ``.../xnorflow/hw/link/uart.py``."""
    parts = Path(file).parts
    if "xnorflow" in parts:
        inner = parts[len(parts) - parts[::-1].index("xnorflow") : -1]
        return "/".join(inner) if inner and inner[0] in FOLDERS else "/".join(("sw", *inner))
    return "/".join(parts[:-1])


def lines(folder: Path) -> bool:
    """Print lines and branches of each package, and return whether enough are covered."""
    report = json.loads((folder / "lines.json").read_text())
    names = ("num_statements", "covered_lines", "num_branches", "covered_branches")
    packages: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(names, 0))
    for file, entry in report["files"].items():
        for name in names:
            packages[package(file)][name] += entry["summary"].get(name, 0)
            packages["all"][name] += entry["summary"].get(name, 0)
    print(f"{'package':22} {'lines':>7} {'covered':>8} {'branches':>9} {'covered':>8} {'both':>8}")
    enough = True
    for name in sorted(packages, key=lambda name: (name == "all", name)):
        total, covered, branches, taken = (packages[name][key] for key in names)
        if total + branches == 0:
            continue
        both = 100 * (covered + taken) / (total + branches)
        low = both < LEAST and name not in FREE
        enough = enough and not low
        print(
            f"{name:22} {total:7} {100 * covered / max(total, 1):7.1f}% {branches:9} "
            f"{100 * taken / max(branches, 1):7.1f}% {both:7.1f}%{f' below {LEAST}%' * low}"
        )
    return enough


def toggles(folder: Path) -> None:
    """Print how many bits of the hardware's signals were seen at 0 and at 1."""
    seen: Seen = {}
    for path in folder.glob("toggles-*.json"):
        for place, name, ones, zeros, width in json.loads(path.read_text()):
            record = seen.setdefault((place, name), [0, 0, 0])
            record[0] |= ones
            record[1] |= zeros
            record[2] = max(record[2], width)
    files: dict[str, list[tuple[str, str, int, int]]] = defaultdict(list)
    for (place, name), (ones, zeros, width) in sorted(seen.items()):
        file, _, line = place.partition(":")
        files[file].append((line, name, (ones & zeros).bit_count(), width))
    print(f"\n{'hardware':27} {'signals':>8} {'bits':>8} {'seen at 0 and 1':>16}")
    for file, rows in files.items():
        both, bits = sum(row[2] for row in rows), sum(row[3] for row in rows)
        stuck = [f"{line} {name}" for line, name, toggled, width in rows if width and not toggled]
        share = 100 * both / max(bits, 1)
        print(f"{file:27} {len(rows):8} {bits:8} {share:15.1f}%")
        if stuck:
            print(f"  never in motion: {', '.join(stuck)}")


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="python tests/coverage", description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    enough = lines(folder)
    toggles(folder)
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main())
