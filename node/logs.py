"""The log of a node: one JSON object a line in its home, where other libraries' complaints go too."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import TextIO, cast

import structlog

from ..protocols.errors import unwritable
from .home import Home

LIMIT = 16 << 20  # bytes, of this file and of the one before it


class LogFile:
    """Appends lines to a file, and to stderr when asked to. What does not fit on the disk is lost; the work goes on,
    and ends when it cannot be recorded."""

    def __init__(self, path: Path, verbose: bool) -> None:
        self._path, self._verbose = path, verbose
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise unwritable(path, error, fix="make it writable, or choose another home: --home DIR") from error

    def _open(self) -> int:
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # the disk is full
            self._turn_over()
            os.write(self._descriptor, text.encode(errors="replace"))
        if self._verbose:
            sys.stderr.write(text)

    def _turn_over(self) -> None:
        """Begin a new file when this one is full, or when another command of this home has."""
        try:
            there = os.stat(self._path)
            if there.st_size > LIMIT:
                os.replace(self._path, self._path.with_suffix(".log.1"))
            elif os.path.samestat(there, os.fstat(self._descriptor)):
                return
        except FileNotFoundError:
            pass  # somebody removed it
        fresh = self._open()
        os.dup2(fresh, self._descriptor, inheritable=False)  # at once: other threads write to it
        os.close(fresh)

    def flush(self) -> None:
        if self._verbose:
            sys.stderr.flush()


def log_to(home: Home, verbose: bool) -> None:
    """Log into `home`, which is created, and when `verbose` to stderr too."""
    home.create()
    stream = cast(TextIO, LogFile(home.log, verbose))
    # Other libraries' complaints (libp2p reports every dial that fails) belong in the log, not on the screen.
    others = LogFile(home.log, verbose=False)
    logging.basicConfig(
        handlers=[logging.StreamHandler(cast(TextIO, others))], level=logging.INFO if verbose else logging.ERROR
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=stream),
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG if verbose else logging.INFO),
    )
