"""Attacks on other processes: their secrets, their lives, their share of the machine; and on becoming more than one."""

from __future__ import annotations

import os
import resource

from .attack import Attack, leaked, more_than, said
from .scene import Scene, io_priority


def _victim_gone(scene: Scene, _: str) -> bool:
    return not scene.victim_lives()


def _memory_changed(scene: Scene, _: str) -> bool:
    return scene.victim_memory() != scene.canary


def _limited(scene: Scene, _: str) -> bool:
    return resource.prlimit(scene.targets()["victim"], resource.RLIMIT_NOFILE)[0] == 3


def _left_behind(scene: Scene, _: str) -> bool:
    return bool(scene.leftovers())


def _oom_first(scene: Scene, _: str) -> bool:
    with open(f"/proc/{scene.targets()['victim']}/oom_score_adj") as file:
        return int(file.read()) > 900


_IOVEC = """
buffer = ctypes.create_string_buffer(b'x' * 23, 23)
class Piece(ctypes.Structure): _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
mine, theirs = Piece(ctypes.addressof(buffer), 23), Piece(address, 23)
def vm(name): call(name, victim, ctypes.byref(mine), 1, ctypes.byref(theirs), 1, 0)
"""
_DAEMON = """
if not os.fork():
    os.setsid()
    if not os.fork():
        libc.prctl(15, marker.encode(), 0, 0, 0)
        os.closerange(0, 3); time.sleep(5)
    os._exit(0)
time.sleep(0.3)
"""
_SIGNAL_BY_PIPE = """
r, w = os.pipe()
{own}
fcntl.fcntl(r, 10, signal.SIGKILL)
fcntl.fcntl(r, fcntl.F_SETFL, fcntl.fcntl(r, fcntl.F_GETFL) | os.O_ASYNC)
os.write(w, b'x'); time.sleep(0.2)
"""

ATTACKS = {
    # ---- their secrets
    "see the environment": Attack("say(os.environ)", leaked),
    "read an environment in /proc": Attack("say(open(f'/proc/{victim}/environ').read())", leaked),
    "read a command line in /proc": Attack("say(open(f'/proc/{victim}/cmdline').read())", leaked),
    "list processes": Attack(
        "for p in os.listdir('/proc'):\n"
        "    if p.isdigit(): refused(lambda: say(open(f'/proc/{p}/cmdline').read()))",
        leaked,
    ),
    "read memory in /proc": Attack(
        "f = open(f'/proc/{victim}/mem', 'rb', 0); f.seek(address); say(f.read(32))", leaked
    ),
    "read memory by system call": Attack(_IOVEC + "vm('process_vm_readv'); say(buffer.raw)", leaked),
    "write memory in /proc": Attack(
        "f = open(f'/proc/{victim}/mem', 'r+b', 0); f.seek(address); f.write(b'x' * 23)", _memory_changed
    ),
    "write memory by system call": Attack(_IOVEC + "vm('process_vm_writev')", _memory_changed),
    "take a descriptor": Attack(
        "pid = os.pidfd_open(victim)\n"
        "for fd in range(3, 16): refused(lambda: say(os.pread(syscall(438, 438, pid, fd, 0), 32, 0)))",
        leaked,
    ),
    "read a descriptor in /proc": Attack(
        "for fd in os.listdir(f'/proc/{victim}/fd'):\n"
        "    if int(fd) > 2: refused(lambda: say(open(f'/proc/{victim}/fd/{fd}').read(32)))",
        leaked,
    ),
    "trace": Attack("call('ptrace', 16, victim, 0, 0); say('TRACED')", said("TRACED")),
    # ---- their lives
    "kill": Attack("os.kill(victim, signal.SIGKILL)", _victim_gone),
    "stop": Attack("os.kill(victim, signal.SIGSTOP)", _victim_gone),
    "kill everything": Attack("os.kill(-1, signal.SIGKILL)", _victim_gone, bare=""),
    "kill a thread": Attack("syscall(234, 131, victim, victim, signal.SIGKILL)", _victim_gone),
    "kill by a queued signal": Attack(
        "info = ctypes.create_string_buffer(struct.pack('iii', signal.SIGKILL, 0, -1) + bytes(116))\n"
        "syscall(129, 138, victim, signal.SIGKILL, info)",
        _victim_gone,
    ),
    "kill by pidfd": Attack("signal.pidfd_send_signal(os.pidfd_open(victim), signal.SIGKILL)", _victim_gone),
    "kill by F_SETOWN": Attack(_SIGNAL_BY_PIPE.format(own="fcntl.fcntl(r, 8, victim)"), _victim_gone),
    "kill by F_SETOWN_EX": Attack(
        _SIGNAL_BY_PIPE.format(own="fcntl.fcntl(r, 15, struct.pack('ii', 1, victim))"), _victim_gone
    ),
    "kill by FIOSETOWN": Attack(
        "r, w = socket.socketpair()\n"
        "fcntl.ioctl(r, 0x8901, struct.pack('i', victim)); fcntl.fcntl(r, 10, signal.SIGKILL)\n"
        "fcntl.fcntl(r, fcntl.F_SETFL, fcntl.fcntl(r, fcntl.F_GETFL) | os.O_ASYNC)\n"
        "w.send(b'x'); time.sleep(0.2)",
        _victim_gone,
    ),
    "be killed instead when memory ends": Attack(
        "open(f'/proc/{victim}/oom_score_adj', 'w').write('950')", _oom_first
    ),
    # ---- their share
    "limit another's descriptors": Attack("resource.prlimit(victim, resource.RLIMIT_NOFILE, (3, 3))", _limited),
    "lower another's priority": Attack(
        "os.setpriority(os.PRIO_PROCESS, victim, 19)",
        lambda scene, _: os.getpriority(os.PRIO_PROCESS, scene.targets()["victim"]) == 19,
    ),
    "idle another's scheduling": Attack(
        "os.sched_setscheduler(victim, os.SCHED_IDLE, os.sched_param(0))",
        lambda scene, _: os.sched_getscheduler(scene.targets()["victim"]) == os.SCHED_IDLE,
    ),
    "idle another's disk": Attack(
        "syscall(251, 30, 1, victim, 3 << 13)", lambda scene, _: io_priority(scene.targets()["victim"]) >> 13 == 3
    ),
    "pin another to a core": Attack(
        "os.sched_setaffinity(victim, {min(os.sched_getaffinity(victim))})",
        lambda scene, _: len(os.sched_getaffinity(scene.targets()["victim"])) < len(os.sched_getaffinity(0)),
    ),
    "leave the own core": Attack(
        "os.sched_setaffinity(0, range(os.cpu_count())); say('FREE')", said("FREE")
    ),
    # ---- becoming more
    "start a process": Attack("pid = os.fork() or os._exit(0); os.waitpid(pid, 0); say('FORKED')", said("FORKED")),
    "start a process by clone": Attack(
        "pid = syscall(56, 220, 17, 0, 0, 0, 0) or os._exit(0); say('CLONED')", said("CLONED")
    ),
    "start a process by clone3": Attack(
        "arguments = ctypes.create_string_buffer(struct.pack('QQQQQ', 0, 0, 0, 0, 17) + bytes(48))\n"
        "pid = syscall(435, 435, arguments, 88) or os._exit(0); say('CLONED')",
        said("CLONED"),
    ),
    "start many processes": Attack(
        "n = 0\n"
        "for _ in range(300):\n"
        "    if not os.fork(): time.sleep(2); os._exit(0)\n"
        "    n += 1\n"
        "say(n)",
        more_than(100), bare="",
    ),
    "leave a daemon": Attack(_DAEMON, _left_behind),
    "start a program": Attack("os.execv('/bin/true', ['true'])",
                              lambda _, output: "refused" not in output and "Error" not in output),
    "run a set-user-id program": Attack(
        "say('NNP', [line for line in open('/proc/self/status') if 'NoNewPrivs' in line][0].split()[1])",
        said("NNP 0"),
    ),
    "run a program by the loader": Attack(
        "loader = sorted(glob.glob('/lib*/ld-linux-*.so.*'))[0]\n"
        "os.execv(loader, [loader, '/bin/echo', 'SAID RAN'])",
        said("RAN"),
    ),
    "run an own script": Attack(
        "open('script', 'w').write('#!/bin/sh\\necho SAID RAN\\n'); os.chmod('script', 0o755)\n"
        "os.execv('./script', ['script'])",
        said("RAN"),
    ),
    "run a shell from libc": Attack("libc.system(b'echo SAID RAN')", said("RAN")),
    "outlive the parent": Attack("call('prctl', 1, 0, 0, 0, 0); say('DETACHED')", said("DETACHED")),
    "lead a new session": Attack("os.fork() and os._exit(0); os.setsid(); say('LEADS')", said("LEADS")),
    "become somebody else": Attack("os.setgid(65534); os.setuid(65534); say('CHANGED')", said("CHANGED"), bare="root"),
    "change the root": Attack("os.chroot('.'); say('CHANGED')", said("CHANGED"), bare="root"),
}  # fmt: skip
