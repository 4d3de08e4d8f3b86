"""An Ethernet switch in this process, whose links take their time, for kernels without netem.

Every host has a TAP device. Frames between two hosts stay in order, as on most real paths.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import random
import struct

_TUNSETIFF, _IFF_TAP, _IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
_FRAME = 65536
_TURN = 64  # frames from one port before another has its turn


class SlowSwitch:
    """Belongs to the running loop. A frame takes half of `delay_ms`, give or take a quarter of that, one way."""

    def __init__(self, delay_ms: float) -> None:
        self._delay = delay_ms / 2e3
        self._ports: dict[bytes, int] = {}  # hardware address: descriptor
        self._open: list[int] = []
        self._last: dict[tuple[int, int], float] = {}  # when the latest frame from one to another comes out

    def plug(self, device: str) -> None:
        """Make a TAP device of that name in this process's network namespace; moved elsewhere, it stays plugged in."""
        port = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self._open.append(port)
        fcntl.ioctl(port, _TUNSETIFF, struct.pack("16sH22x", device.encode(), _IFF_TAP | _IFF_NO_PI))
        asyncio.get_running_loop().add_reader(port, self._hear, port)

    def close(self) -> None:
        """Unplug all; frames under way are lost."""
        for port in self._open:
            asyncio.get_running_loop().remove_reader(port)
            os.close(port)
        self._open = []

    def _hear(self, port: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(_TURN):
            try:
                frame = os.read(port, _FRAME)
            except BlockingIOError:
                return
            self._ports[frame[6:12]] = port
            known = self._ports.get(frame[:6])
            for other in self._open if known is None else [known]:
                if other != port:
                    out = loop.time() + self._delay * random.uniform(0.75, 1.25)
                    out = self._last[port, other] = max(out, self._last.get((port, other), 0.0))
                    loop.call_at(out, self._say, other, frame)

    def _say(self, port: int, frame: bytes) -> None:
        if port in self._open:
            with contextlib.suppress(OSError):  # a full queue, or a host that is gone: frames get lost
                os.write(port, frame)
