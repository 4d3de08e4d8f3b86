"""Confinement of every candidate: Landlock, seccomp, rlimits, watchdog."""
