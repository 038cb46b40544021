"""Many foldings, boards, clocks and seeds: estimate all, then build a chosen few for real.

- :mod:`~xnorflow.explore.points`: one configuration, and the key of its content,
- :mod:`~xnorflow.explore.candidates`: the estimated front, and which points of it to build,
- :mod:`~xnorflow.explore.work`: builds one point, in whatever process or machine,
- :mod:`~xnorflow.explore.workers`: local processes, or a Dask cluster,
- :mod:`~xnorflow.explore.cache`: finished points on disk, so that none is built twice,
- :mod:`~xnorflow.explore.session`: all of it together,
- :mod:`~xnorflow.explore.front`: which results no other beats.
"""

from xnorflow.explore.session import Exploration, explore

__all__ = ["Exploration", "explore"]
