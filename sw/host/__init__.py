"""The host's end of the link: packets, frames on their way, and a device to send them to.

::

    Device ─► Transfer: which segment is next, what was lost ─► packets ─► serial port
"""

from xnorflow.host.device import Device, DeviceRun, Transport
from xnorflow.host.packets import Identity, Status
from xnorflow.host.transfer import Trouble

__all__ = ["Device", "DeviceRun", "Identity", "Status", "Transport", "Trouble"]
