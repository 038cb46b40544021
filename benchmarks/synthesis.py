"""What the tools make of a component: cells, as yosys maps and nextpnr packs them."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import rtlil
from amaranth.lib import wiring

from xnorflow.boards.flow import SYNTHESIS
from xnorflow.boards.refine import refine
from xnorflow.boards.tools import find, run

__all__ = ["FAMILIES", "Area", "Mapped", "mapped", "synthesise"]

#: How yosys is called by default, and the largest device of nextpnr, for each family.
FAMILIES = {
    "ice40": (SYNTHESIS["ice40"].format(speed="hx"), "--hx8k --package ct256"),
    "ecp5": (SYNTHESIS["ecp5"], "--85k --package CABGA381 --lpf-allow-unconstrained"),
}

#: What the cells that stand beside LUTs are called.
CARRIES = ("SB_CARRY", "CCU2C")
BRAMS = ("SB_RAM40_4K", "DP16KD", "PDPW16KD")
DSPS = ("SB_MAC16", "MULT18X18D")


@dataclass(frozen=True)
class Area:
    """What a component takes.

    Attributes
    ----------
    lut : int
        iCE40: LUT4s. ECP5: what nextpnr calls TRELLIS_COMB, LUT4s with those in carry chains (two
        in each of their slices, and four to enter and leave a chain) and in distributed RAM.
    ff : int
    carry : int
        SB_CARRY or CCU2C.
    cells : int
        iCE40: logic cells after packing, each a LUT, a carry and a flip-flop. ECP5: as `lut`.
    bram, dsp : int
    """

    lut: int
    ff: int
    carry: int
    cells: int
    bram: int
    dsp: int


@dataclass(frozen=True)
class Mapped:
    """What yosys and nextpnr say of a component.

    Attributes
    ----------
    counts : Counter
        Cells by type, as yosys maps it.
    log : str
        nextpnr's.
    """

    counts: Counter[str]
    log: str

    def packed(self, kind: str) -> int:
        """Return how many cells of a kind nextpnr packs it into."""
        return int(re.search(rf"^Info:\s+{kind}:\s*(\d+)/", self.log, re.M)[1])

    def line(self, words: str) -> int:
        """Return the number in nextpnr's line that ends in `words`, 0 if there is none."""
        found = re.search(rf"^Info:\s+(\d+) {words}$", self.log, re.M)
        return int(found[1]) if found else 0


def mapped(
    family: str,
    unit: wiring.Component | str,
    command: str | None = None,
    options: str = "--pack-only",
) -> Mapped:
    """Synthesise and pack a component alone; parameters as of `synthesise`.

    Parameters
    ----------
    options : str
        nextpnr's, besides the device.
    """
    synthesis, device = FAMILIES[family]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = unit if isinstance(unit, str) else rtlil.convert(unit, emit_src=False)
        (folder / "unit.il").write_text(text)
        # Hidden names: ABC9 of yosys 0.70 takes `\\x[1]` for a bit of the port `\\x`.
        (folder / "unit.ys").write_text(
            f"read_rtlil unit.il\nrename -hide w:*]\n{command or synthesis} -top top\n"
            "write_json unit.json\n"
        )
        log = folder / "log"
        run(find("yosys"), ["unit.ys"], folder, log, "synthesise", lambda step, message: None)
        design = json.loads((folder / "unit.json").read_text())
        refine(design)
        types = Counter(cell["type"] for cell in design["modules"]["top"]["cells"].values())
        (folder / "unit.json").write_text(json.dumps(design))
        arguments = f"{device} {options} --json unit.json".split()
        tool = find(f"nextpnr-{family}")
        run(tool, arguments, folder, log, "pack", lambda step, message: None)
        return Mapped(Counter(types), log.read_text())


def synthesise(family: str, unit: wiring.Component | str, command: str | None = None) -> Area:
    """Synthesise and pack a component alone.

    Parameters
    ----------
    family : str
    unit : Component or str
        A component or its RTLIL.
    command : str, optional
        yosys' command for another device of the family.
    """
    made = mapped(family, unit, command)
    counts = made.counts
    cells = made.packed("ICESTORM_LC" if family == "ice40" else "TRELLIS_COMB")
    return Area(
        lut=counts["SB_LUT4"] if family == "ice40" else cells,
        ff=sum(n for kind, n in counts.items() if kind.startswith(("SB_DFF", "TRELLIS_FF"))),
        carry=sum(counts[kind] for kind in CARRIES),
        cells=cells,
        bram=sum(counts[kind] for kind in BRAMS),
        dsp=sum(counts[kind] for kind in DSPS),
    )
