"""Attacks on what everybody shares: memory, disk, threads, descriptors, and the patience of who reads the output."""

from __future__ import annotations

from .attack import Attack, more_than, said
from .scene import Scene

MEMORY = 1 << 30  # of a run in this suite
DISK = 64 << 20  # its default


def _escape_sequence(_: Scene, output: str) -> bool:
    return "\x1b" in output


def _flooded(_: Scene, output: str) -> bool:
    return len(output) > 1 << 20


ATTACKS = {
    "touch much memory": Attack(
        "blocks = []\n"
        "for n in range(16):\n"
        "    blocks.append(bytearray(b'x') * (128 << 20)); say(n * 128)",
        more_than(MEMORY >> 20), bare="",
    ),
    "share much memory": Attack(
        "blocks = []\n"
        "for n in range(16):\n"
        "    blocks.append(mmap.mmap(-1, 128 << 20))\n"
        "    for at in range(0, 128 << 20, 4096): blocks[-1][at] = 1\n"
        "    say(n * 128)",
        more_than(MEMORY >> 20), bare="",
    ),
    "map much memory": Attack(
        "mmap.mmap(-1, 50 << 30, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000); say('MAPPED')", said("MAPPED")
    ),
    "hide memory in a memfd": Attack(
        "os.write(syscall(319, 279, b'x', 0), bytes(1 << 20)); say('HIDDEN')", said("HIDDEN")
    ),
    "hide memory in a growing stack": Attack(
        "mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100); say('HIDDEN')", said("HIDDEN")
    ),
    "hide memory in pipes": Attack(
        "total = 0\n"
        "for _ in range(60):\n"
        "    r, w = os.pipe(); fcntl.fcntl(w, 1031, 1 << 20); os.set_blocking(w, False)\n"
        "    total += os.write(w, bytes(1 << 20))\n"
        "say(total >> 20)",
        more_than(16), bare="",
    ),
    "hide memory in /dev/zero": Attack(
        "mmap.mmap(os.open('/dev/zero', os.O_RDWR), 1 << 20); say('HIDDEN')", said("HIDDEN")
    ),
    "lock memory": Attack("call('mlockall', 2); say('LOCKED')", said("LOCKED")),
    "hide memory in thread stacks": Attack(
        "threading.stack_size(64 << 20); wait = threading.Event(); touched = []\n"
        "def work():\n"
        "    try: block = ctypes.create_string_buffer(b'x', 48 << 20)\n"
        "    except MemoryError: return\n"
        "    ctypes.memset(block, 1, 48 << 20); touched.append(block); wait.wait(8)\n"
        "try:\n"
        "    for _ in range(40): threading.Thread(target=work, daemon=True).start(); time.sleep(0.05)\n"
        "except (MemoryError, RuntimeError): pass\n"
        "time.sleep(1); say(len(touched) * 48); wait.set()",
        more_than(MEMORY >> 20), bare="",
    ),
    "write one huge file": Attack(
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); f = os.open('big', os.O_CREAT | os.O_RDWR)\n"
        "os.posix_fallocate(f, 0, 300 << 20); say('WRITTEN'); time.sleep(1)",
        said("WRITTEN"),
    ),
    "make one sparse file": Attack(
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "os.ftruncate(os.open('sparse', os.O_CREAT | os.O_RDWR), 1 << 40); say('MADE')",
        said("MADE"),
    ),
    "write many files": Attack(
        "for n in range(16):\n"
        "    open(f'big-{n}', 'wb').write(bytes(40 << 20)); time.sleep(0.05); say(n * 40)",
        more_than(3 * DISK >> 20), bare="", watched=True,
    ),
    "write files that no directory shows": Attack(
        "for n in range(6):\n"
        "    f = open('gone', 'wb'); os.unlink('gone'); f.write(bytes(1 << 20))\n"
        "say('HIDDEN')",
        said("HIDDEN"),
    ),
    "write an unnamed file": Attack("os.write(os.open('.', os.O_TMPFILE | os.O_RDWR), b'x'); say('HIDDEN')",
                                    said("HIDDEN")),
    "make many files": Attack(
        "for n in range(5_000):\n"
        "    os.close(os.open(f'file-{n}', os.O_CREAT))\n"
        "    if n % 100 == 0: time.sleep(0.02)\n"
        "say(n)",
        more_than(4_000), watched=True,
    ),
    "bury files": Attack("os.makedirs('a/' * 100); say('BURIED')", said("BURIED")),
    "start many threads": Attack(
        "threading.stack_size(1 << 17); wait = threading.Event(); n = 0\n"
        "try:\n"
        "    for _ in range(500): threading.Thread(target=wait.wait, args=(5,), daemon=True).start(); n += 1\n"
        "except RuntimeError: pass\n"
        "time.sleep(0.5); say(n); wait.set()",
        more_than(300), watched=True,
    ),
    "open many files": Attack(
        "n = 0\n"
        "try:\n"
        "    while n < 2000: os.open(text, os.O_RDONLY); n += 1\n"
        "except OSError: pass\n"
        "say(n)",
        more_than(300),
    ),
    "never end": Attack("time.sleep(0.5)\nwhile True: pass", lambda *_: False, bare="", wall=3.0, watched=True),
    "never end and hear no signal": Attack(
        "for number in range(1, 65):\n"
        "    try: signal.signal(number, signal.SIG_IGN)\n"
        "    except (OSError, ValueError): pass\n"
        "libc.prctl(15, marker.encode(), 0, 0, 0)\n"
        "while True: time.sleep(0.1)",
        lambda scene, _: bool(scene.leftovers()), bare="", wall=3.0, watched=True,
    ),
    "flood the output": Attack("while True: print('x' * 65536)", _flooded, bare="", wall=3.0, watched=True),
    "flood the output and leave": Attack("for _ in range(64): print('x' * 65536)", _flooded, watched=True),
    "send escape sequences": Attack("print('\\x1b]0;owned\\x07\\x1b[2J')", _escape_sequence, watched=True),
}  # fmt: skip
