"""Turns (task, program) into evidence on this machine. Plain synchronous Python."""
