"""Ctrl-C ends a node, whatever its threads are busy with."""

from __future__ import annotations

import signal
import subprocess
import sys

STUCK = """
import asyncio, threading, uvloop
from swarm_node.node.screen import Screen
from swarm_node.node.signals import until_signalled

async def work():
    print("busy", flush=True)
    await asyncio.to_thread(threading.Event().wait)

async def main():
    code = await until_signalled(Screen(), work())
    print("stopped", code, flush=True)

uvloop.run(main())
"""


def test_second_interrupt_leaves_while_a_thread_is_stuck() -> None:
    """The first Ctrl-C stops the work; the loop then waits for its thread, and the second one ends that too."""
    with subprocess.Popen([sys.executable, "-c", STUCK], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "busy\n"
        process.send_signal(signal.SIGINT)
        try:
            assert process.stdout.readline() == "stopped 130\n"
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        finally:
            process.kill()
