"""Training of binarized networks, and their export to QONNX.

:mod:`~xnorflow.train.recipes`, :mod:`~xnorflow.train.export` and the command need no torch;
:mod:`~xnorflow.train.net`, :mod:`~xnorflow.train.augment` and :mod:`~xnorflow.train.loop` do
(``pip install 'xnorflow[train]'``) and are imported by the command only when it trains.
"""
