"""Attacks on files: reading what is secret, writing what is trusted, leaving something behind."""

from __future__ import annotations

import os
from pathlib import Path

from .attack import Attack, Judge, leaked, said
from .scene import Scene


def _changed(name: str, content: str) -> Judge:
    return lambda scene, _: (scene.root / name).read_text() != content


def _text_changed(scene: Scene, _: str) -> bool:
    return scene.text.read_bytes() != b"training text " * 4096


def _held_gone(scene: Scene, _: str) -> bool:
    held = scene.node / "held.bin"
    return not held.exists() or held.stat().st_size < 1000


def _planted(scene: Scene, _: str) -> bool:
    return bool(list((scene.node / "site-packages").iterdir()))


def _planted_in_tmp(scene: Scene, _: str) -> bool:
    found = [Path(folder) / scene.marker for folder in ("/tmp", "/var/tmp", "/dev/shm")]
    present = [path for path in found if path.exists()]
    for path in present:
        path.unlink()
    return bool(present)


def _stolen(scene: Scene, _: str) -> bool:
    return not (scene.other_run / "model").exists() or (scene.other_run.parent / scene.marker).exists()


def _has_attribute(scene: Scene, _: str) -> bool:
    try:
        return os.getxattr(scene.node / "evaluator.py", "user.evil") == b"1"
    except OSError:
        return False


def _same(path: str) -> Judge:
    """The output holds what this file says here."""
    return lambda _, output: Path(path).read_text().strip() in output


ATTACKS = {
    # ---- reading
    "read the account database": Attack("say(open('/etc/passwd').readline())", said("root:")),
    "read a private key": Attack("say(open(key).read())", leaked),
    "read a private key from native code": Attack(
        "import torch; say(bytes(torch.UntypedStorage.from_file(key, False, os.path.getsize(key)).tolist()))",
        leaked, torch=True,
    ),
    "read held-out text": Attack("say(open(held).read(40))", leaked),
    "read held-out text from native code": Attack(
        "import torch; say(bytes(torch.from_file(held, size=40, dtype=torch.uint8).tolist()))", leaked, torch=True
    ),
    "read through a hard link": Attack("os.link(held, 'mine'); say(open('mine').read(40))", leaked),
    "read through a symbolic link": Attack("os.symlink(held, 'mine-2'); say(open('mine-2').read(40))", leaked),
    "read through /proc/self/root": Attack("say(open('/proc/self/root' + key).read())", leaked),
    "read by a path upwards": Attack("say(open('../' * 40 + key.lstrip('/')).read())", leaked),
    "read by reopening an O_PATH descriptor": Attack(
        "fd = os.open(key, os.O_PATH); say(open(f'/proc/self/fd/{fd}').read())", leaked
    ),
    "read with openat2": Attack(
        "how = ctypes.create_string_buffer(24)\n"
        "fd = syscall(437, 437, -100, ctypes.c_char_p(key.encode()), ctypes.byref(how), 24)\n"
        "say(os.read(fd, 40))",
        leaked,
    ),
    "read by file handle": Attack(
        "handle = ctypes.create_string_buffer(struct.pack('Ii', 128, 0) + bytes(128)); mount = ctypes.c_int()\n"
        "syscall(303, 264, -100, ctypes.c_char_p(key.encode()), handle, ctypes.byref(mount), 0)\n"
        "base = os.open('.', os.O_RDONLY)\n"
        "say(os.read(syscall(304, 265, base, handle, os.O_RDONLY), 40))",
        leaked, bare="root",
    ),
    "copy in the kernel": Attack(
        "to = os.open('copy', os.O_CREAT | os.O_RDWR); os.sendfile(to, os.open(key, os.O_RDONLY), 0, 99)\n"
        "say(os.pread(to, 99, 0))",
        leaked,
    ),
    "read another run's files": Attack("say(open(other_run + '/model').read())", leaked),
    "list a home": Attack("say('LISTED', os.listdir(home))", said("LISTED")),
    "watch a home": Attack("syscall(294, 26, 0); call('inotify_add_watch', 3, ctypes.c_char_p(home.encode()), 2)\n"
                           "say('WATCHED')", said("WATCHED")),
    "read the machine's identity": Attack("say(open('/proc/sys/kernel/random/boot_id').read())",
                                          _same("/proc/sys/kernel/random/boot_id")),
    "read the table of mounts": Attack("say('MOUNTS', len(open('/proc/self/mountinfo').read()))", said("MOUNTS")),
    "use an inherited descriptor": Attack(
        "for fd in range(3, 64):\n"
        "    refused(lambda: say(os.pread(fd, 64, 0)))",
        leaked,
    ),
    # ---- writing
    "write to a start-up file": Attack("open(home + '/.bashrc', 'a').write('evil')",
                                       _changed("home/.bashrc", "harmless\n")),
    "overwrite the evaluator": Attack("open(evaluator, 'w').write('evil')",
                                      _changed("node/evaluator.py", "trusted\n")),
    "overwrite through a symbolic link": Attack("os.symlink(evaluator, 'link'); open('link', 'w').write('evil')",
                                                _changed("node/evaluator.py", "trusted\n")),
    "plant a .pth file": Attack("open(node + '/site-packages/evil.pth', 'w').write('import os')", _planted),
    "plant bytecode": Attack("os.mkdir(node + '/site-packages/__pycache__')", _planted),
    "plant in a temporary directory": Attack(
        "for folder in ('/tmp/', '/var/tmp/', '/dev/shm/'):\n"
        "    refused(lambda: open(folder + marker, 'w').write('x'))",
        _planted_in_tmp,
    ),
    "plant beside its own directory": Attack("open(scratch + '/' + marker, 'w')", _stolen),
    "move a file in": Attack("os.rename(held, 'held')", _held_gone),
    "move another run away": Attack("os.rename(other_run + '/model', 'model')", _stolen),
    "truncate while opening to read": Attack("os.open(text, os.O_RDONLY | os.O_TRUNC)", _text_changed),
    "truncate with access mode 3": Attack("os.open(held, 3 | os.O_TRUNC)", _held_gone),
    "truncate by path": Attack("os.truncate(held, 0)", _held_gone),
    "poison the training text": Attack("open(text, 'r+').write('evil')", _text_changed),
    "poison the training text in memory": Attack(
        "mmap.mmap(os.open(text, os.O_RDWR), 4096)[:4] = b'evil'", _text_changed
    ),
    "delete a file": Attack("os.unlink(held)", _held_gone),
    "change a mode": Attack("os.chmod(home + '/.ssh', 0o777)",
                            lambda scene, _: (scene.home / ".ssh").stat().st_mode & 0o777 != 0o700),
    "change time stamps": Attack("os.utime(evaluator)",
                                 lambda scene, _: (scene.node / "evaluator.py").stat().st_mtime != 1e9),
    "set an extended attribute": Attack("os.setxattr(evaluator, 'user.evil', b'1')", _has_attribute),
    "lock a file of the node": Attack(
        "fcntl.flock(os.open(held, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB); say('LOCKED')", said("LOCKED")
    ),
    "lock a readable file": Attack(
        "fcntl.flock(os.open(text, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB); say('LOCKED')", said("LOCKED")
    ),
    "lease a readable file": Attack(
        "fcntl.fcntl(os.open(text, os.O_RDONLY), 1024, fcntl.F_RDLCK); say('LEASED')", said("LEASED")
    ),
    # ---- traps for whoever cleans up or counts
    "leave a symbolic link": Attack("os.symlink(node, 'trap'); say('LINKED')", said("LINKED")),
    "leave a named pipe": Attack("os.mkfifo('pipe'); say('MADE')", said("MADE")),
    "leave a socket": Attack("socket.socket(socket.AF_UNIX).bind('socket'); say('BOUND')", said("BOUND")),
    "leave a device": Attack("os.mknod('device', 0o020666, os.makedev(1, 3)); say('MADE')", said("MADE"), bare="root"),
    "leave a closed directory": Attack("os.mkdir('closed', 0o300); say('MADE')", said("MADE")),
    "leave a set-user-id file": Attack("open('s', 'w'); os.chmod('s', 0o4755); say('MADE')", said("MADE")),
}  # fmt: skip
