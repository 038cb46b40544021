"""Import one module of xnorflow from a changed text, in this process only; no file is touched."""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

__all__ = ["ROOT", "install", "module_name"]

ROOT = Path(__file__).parents[2]

#: Folders and the packages that they are.
_PACKAGES = {"hw": "xnorflow.hw", "sim": "xnorflow.sim", "boards": "xnorflow.boards"}


def module_name(file: str) -> str:
    """Return the module of a file, as ``xnorflow.hw.link.uart`` of ``hw/link/uart.py``."""
    folder, *parts = Path(file).with_suffix("").parts
    return ".".join([_PACKAGES[folder], *parts])


class _MutantLoader(importlib.abc.SourceLoader):
    """Gives one text as the source of a module; nothing is cached."""

    def __init__(self, path: str, text: str):
        self.path, self.text = path, text

    def get_filename(self, fullname: str) -> str:
        return self.path

    def get_data(self, path: str) -> bytes:
        if path != self.path:
            raise OSError(path)
        return self.text.encode()


class _MutantFinder(importlib.abc.MetaPathFinder):
    """Finds one module, before all other finders do."""

    def __init__(self, name: str, loader: _MutantLoader):
        self.name, self.loader = name, loader

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_loader(fullname, self.loader, origin=self.loader.path)


def install(file: str, text: str) -> None:
    """From now on import `file`, a path below the repository's root, as `text`."""
    name = module_name(file)
    if name in sys.modules:
        raise RuntimeError(f"{name} has been imported: it is too late to change it")
    sys.meta_path.insert(0, _MutantFinder(name, _MutantLoader(str(ROOT / file), text)))
