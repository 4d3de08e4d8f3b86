"""More attacks than the self-test's, each from a forked run child, on this kernel's Landlock and on the oldest.

Every attack runs in the same confined child, after it narrowed itself; it is stopped when the kernel refuses.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from swarm_node.trainer import sandbox
from swarm_node.trainer.sandbox.policy import fork_server_policy, run_policy
from swarm_node.trainer.sandbox.spawn import spawn

# Each either raises OSError or succeeds; `text` is readable, `victim` a file outside, `pid` another process.
ATTACKS = {
    "raw netlink socket": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "vsock socket": "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
    "listening socket": "socket.create_server(('127.0.0.1', 0))",
    "datagram socket pair": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "unix socket by path": "socket.socket(socket.AF_UNIX)",
    "user namespace": "call('unshare', 0x10000000)",
    "raw clone of a process": "syscall(56, 17, 0, 0, 0, 0)",
    "clone3": "syscall(435, 0, 0)",
    "vfork": "syscall(58)",
    "shared memory segment": "call('shmget', 0, 4096, 0o1600)",
    "message queue": "call('msgget', 0, 0o1600)",
    "io_uring": "syscall(425, 4, 0)",
    "bpf": "syscall(321, 0, 0, 0)",
    "perf events": "syscall(298, 0, 0, -1, -1, 0)",
    "userfaultfd": "syscall(323, 1)",
    "key ring": "syscall(250, 0, -3, 1)",
    "inotify": "syscall(294, 0)",
    "fanotify": "syscall(300, 0, 0)",
    "open by handle": "syscall(304, -100, 0, 0)",
    "secret memory": "syscall(447, 0)",
    "personality": "call('personality', 0x0040000)",
    "limits of another process": "resource.prlimit(pid, resource.RLIMIT_NOFILE, (64, 64))",
    "priority of another process": "os.setpriority(os.PRIO_PROCESS, pid, 19)",
    "affinity of another process": "os.sched_setaffinity(pid, {0})",
    "own affinity": "os.sched_setaffinity(0, os.sched_getaffinity(0))",
    "memory of another process": "open(f'/proc/{pid}/mem', 'rb').read(1)",
    "command line of another process": "open(f'/proc/{pid}/cmdline', 'rb').read()",
    "descriptors of another process": "os.listdir(f'/proc/{pid}/fd')",
    "list of processes": "os.listdir('/proc')",
    "pidfd": "os.pidfd_open(pid)",
    "signal to a group": "os.kill(0, 0)",
    "signal to all": "os.kill(-1, 0)",
    "thread signal": "syscall(234, pid, pid, 0)",
    "queued signal": "syscall(129, pid, 10, 0)",
    "survive the parent": "call('prctl', 1, 0, 0, 0, 0)",
    "give up confinement": "call('prctl', 38, 0, 0, 0, 0)",
    "account database": "open('/etc/passwd').read()",
    "home directory": "os.listdir(home)",
    "temporary directory": "open('/tmp/planted', 'w')",
    "shared memory directory": "open('/dev/shm/planted', 'w')",
    "truncate with access mode 3": "os.open(victim, 3 | os.O_TRUNC)",
    "truncate by path": "os.truncate(text, 0)",
    "append to the text": "open(text, 'a')",
    "hard link": "os.link(text, 'link')",
    "write through a symbolic link": "open_through_link(victim)",
    "move a file in": "os.rename(victim, 'moved')",
    "delete a file": "os.unlink(victim)",
    "time stamps": "os.utime(text, (1, 1))",
    "extended attribute": "os.setxattr(text, 'user.x', b'1')",
    "lease": "fcntl.fcntl(os.open(text, os.O_RDONLY), 1024, fcntl.F_RDLCK)",
    "advisory lock": "fcntl.flock(os.open(text, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)",
    "named pipe": "os.mkfifo('fifo')",
    "directory": "os.mkdir('closed', 0o300)",
    "directory below a descriptor": "os.mkdir('closed-too', dir_fd=os.open('.', os.O_RDONLY))",
    "device node": "os.mknod('node', 0o020666, os.makedev(1, 3))",
    "set-user-id program": "os.execv('/usr/bin/su', ['su', '-c', 'id'])",
    "interpreter": "os.execv(sys.executable, ['python', '-c', ''])",
    "larger pipe": "fcntl.fcntl(os.pipe()[0], 1031, 1 << 20)",
    "shared pages of /dev/zero": "mmap.mmap(os.open('/dev/zero', os.O_RDWR), 4096)",
    "huge pages": "mmap.mmap(-1, 2 << 20, flags=0x40022)",
    "locked memory": "call('mlock', 0, 4096)",
    "terminal input": "fcntl.ioctl(0, 0x5412, b'x')",
    "higher limit": "resource.setrlimit(resource.RLIMIT_DATA, (-1, -1))",
}
HARMLESS = {
    *(
        "raw netlink socket",
        "listening socket",
        "datagram socket pair",
        "unix socket by path",
        "inotify",
        "own affinity",
    ),
    *("command line of another process", "list of processes", "pidfd", "signal to a group", "signal to all"),
    *("survive the parent", "account database", "home directory", "truncate with access mode 3", "truncate by path"),
    *("append to the text", "hard link", "write through a symbolic link", "time stamps", "lease", "advisory lock"),
    *("named pipe", "larger pipe", "shared pages of /dev/zero", "move a file in"),
    *("directory", "directory below a descriptor"),
}
ON_X86 = {name for name, source in ATTACKS.items() if source.startswith("syscall(")} - {"clone3", "io_uring"}

CHILD = """
import ctypes, fcntl, importlib, json, mmap, os, resource, socket, sys
job = json.load(sys.stdin)
sys.path.append(job["package"])
confine = importlib.import_module("sandbox.confine")
names = dict(job["names"], pid=os.getpid())
if job["policy"] and (child := os.fork()):
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
libc = ctypes.CDLL(None, use_errno=True)
def check(result):
    if result < 0: raise OSError(ctypes.get_errno(), "")
def call(name, *arguments): check(getattr(libc, name)(*map(ctypes.c_long, arguments)))
def syscall(*arguments): check(libc.syscall(*map(ctypes.c_long, arguments)))
def open_through_link(path):
    os.symlink(path, "to-it"); open("to-it", "a")
try:
    if job["policy"]:
        confine.set_parent_death(names["pid"])
        policy = confine.Policy.from_json(job["policy"])
        os.chdir(policy.cwd)
        confine.confine(policy, "run")
except BaseException as error:
    confine.fail_closed(error)
outcomes = {}
for name, source in job["attacks"].items():
    try:
        exec(source, globals() | names)
        outcomes[name] = "succeeded"
    except (OSError, ValueError) as error:
        outcomes[name] = f"{type(error).__name__} {getattr(error, 'errno', '')}"
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module", params=[None, 1], ids=["this-abi", "abi-1"])
def outcomes(request, tmp_path_factory) -> dict[str, str]:
    """What became of every attack under the policy of a fork server and its run child."""
    root = scene(tmp_path_factory.mktemp("hostile"))
    server = fork_server_policy(root / "scratch", root / "text", [], 1 << 30, force_abi=request.param)
    policy = run_policy(server, root / "scratch" / "own", 20)
    job = {"policy": policy.to_json(), "attacks": on_this_machine(ATTACKS)} | names(root)
    with spawn(server, [sys.executable, "-I", "-S", "-B", "-c", CHILD], stdin=subprocess.PIPE) as process:
        out, err = process.communicate(json.dumps(job).encode(), timeout=60)
    assert process.returncode == 0, err.decode()
    assert [(root / name).read_text() for name in ("text", "victim")] == ["canary", "canary"]
    return json.loads(out)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_stopped(outcomes, name):
    """The kernel refuses, with an error that means no rather than not found or not valid."""
    if name not in outcomes:
        pytest.skip("written for x86_64")
    refusals = {"PermissionError 1", "PermissionError 13", "OSError 38", "OSError 25", "ValueError "}
    assert outcomes[name] in refusals


def test_attacks_succeed_without_the_sandbox(tmp_path):
    """The harmless ones among the attacks are real: the same code succeeds in a plain process."""
    root = scene(tmp_path)
    harmless = on_this_machine({name: source for name, source in ATTACKS.items() if name in HARMLESS})
    job = json.dumps({"policy": None, "attacks": harmless} | names(root))
    argv = [sys.executable, "-I", "-S", "-B", "-c", CHILD]
    done = subprocess.run(argv, input=job, capture_output=True, text=True, cwd=root / "scratch" / "own")
    assert json.loads(done.stdout) == dict.fromkeys(harmless, "succeeded"), done.stderr


def scene(root: Path) -> Path:
    (root / "scratch" / "own").mkdir(parents=True)
    for name in ("text", "victim"):
        (root / name).write_text("canary")
    return root


def names(root: Path) -> dict[str, object]:
    package = str(Path(next(iter(sandbox.__path__))).parent)
    known = {"text": str(root / "text"), "victim": str(root / "victim"), "home": str(Path.home())}
    return {"package": package, "names": known}


def on_this_machine(attacks: dict[str, str]) -> dict[str, str]:
    x86 = os.uname().machine == "x86_64"
    return {name: source for name, source in attacks.items() if x86 or name not in ON_X86}
