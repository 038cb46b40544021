"""The committed measurements: what the tools make of every configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock

from amaranth.back import rtlil
from configurations import Config, unit_of
from synthesis import FAMILIES, Area, synthesise

from xnorflow.boards.tools import find

__all__ = ["FILE", "Measurement", "Measurements"]

FILE = Path(__file__).parent / "data" / "cost.json"


@dataclass(frozen=True)
class Measurement:
    """A configuration and what it took.

    Attributes
    ----------
    family : str
    config : dict
    digest : str
        Of the hardware in RTLIL: another one is measured anew.
    area : Area
    """

    family: str
    config: Config
    digest: str
    area: Area


def _key(family: str, config: Config) -> str:
    return f"{family} {json.dumps(config, sort_keys=True)}"


class Measurements:
    """A file of measurements, one a line.

    Parameters
    ----------
    file : Path
        Read if it is there.
    """

    def __init__(self, file: Path = FILE):
        self.file = file
        self.known: dict[str, Measurement] = {}
        if file.exists():
            for row in json.loads(file.read_text())["measurements"]:
                one = Measurement(row["family"], row["config"], row["rtlil"], Area(*row["area"]))
                self.known[_key(one.family, one.config)] = one

    def of(self, family: str, configs: Iterable[Config]) -> list[Measurement]:
        """Return the measurements of `configs`; those that are missing are left out."""
        found = (self.known.get(_key(family, config)) for config in configs)
        return [one for one in found if one is not None]

    def measure(
        self,
        wanted: Iterable[tuple[str, Config]],
        jobs: int,
        tell: Callable[[Measurement], None],
    ) -> None:
        """Measure what is not known, or whose hardware has changed; the file is always complete.

        Parameters
        ----------
        wanted : iterable of (family, configuration)
        jobs : int
            Tools that run side by side.
        tell : callable
            Called with each new measurement.
        """
        lock = Lock()

        def one(family: str, config: Config) -> None:
            with lock:  # Amaranth's names are global
                unit = unit_of(config, family)
                text = rtlil.convert(unit, emit_src=False)
            digest = hashlib.sha256((FAMILIES[family][0] + text).encode()).hexdigest()[:12]
            key = _key(family, config)
            if key in self.known and self.known[key].digest == digest:
                return
            measurement = Measurement(family, config, digest, synthesise(family, text))
            with lock:
                self.known[key] = measurement
                self.write()
                tell(measurement)

        with ThreadPoolExecutor(jobs) as pool:
            for future in [pool.submit(one, *each) for each in wanted]:
                future.result()

    def keep(self, wanted: Iterable[tuple[str, Config]]) -> None:
        """Forget all others."""
        keys = {_key(*each) for each in wanted}
        self.known = {key: one for key, one in self.known.items() if key in keys}
        self.write()

    def write(self) -> None:
        """Write the file, one measurement a line."""
        rows = [
            json.dumps(
                {
                    "family": one.family,
                    "config": one.config,
                    "rtlil": one.digest,
                    "area": list(asdict(one.area).values()),
                }
            )
            for one in self.known.values()
        ]
        tools = {name: find(name).version for name in ("yosys", "nextpnr-ice40", "nextpnr-ecp5")}
        head = json.dumps({"tools": tools, "area": list(Area.__dataclass_fields__)})[1:-1]
        text = "{" + head + ', "measurements": [\n' + ",\n".join(rows) + "\n]}\n"
        partial = self.file.with_suffix(".partial")
        self.file.parent.mkdir(exist_ok=True)
        partial.write_text(text)
        partial.replace(self.file)
