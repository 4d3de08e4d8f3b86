"""Confine this process as a policy says, then become the given program.

    python -I -S -B launch.py POLICY.json -- /path/to/program argument...

Any layer that cannot be applied ends it with status 126 before the program starts.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Never returns: execs the program, or exits 126."""
    # Isolated mode knows no installed package. Appended, so that no sibling can shadow the standard library.
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    confine = importlib.import_module("sandbox.confine")
    try:
        path, dashes, *program = arguments
        if dashes != "--" or not program:
            raise ValueError("usage: launch.py POLICY.json -- program argument...")
        policy = confine.Policy.from_json(Path(path).read_text())
        if os.getsid(0) != os.getpid():
            os.setsid()
        if policy.parent:  # else bubblewrap, which dies with its own parent and has us die with it
            confine.set_parent_death(policy.parent)
        confine.close_fds((0, 1, 2, *policy.keep_fds))
        os.umask(0o077)
        os.chdir(policy.cwd)
        confine.drop_capabilities()
        confine.confine(policy, policy.mode)
        os.execve(program[0], program, policy.env)
    except BaseException as error:
        confine.fail_closed(error)


if __name__ == "__main__":
    main(sys.argv[1:])
