"""Processes of measuring, as tests count them: started anew, or forked from a prepared one that may stay."""

from __future__ import annotations

import psutil

ANEW, PREPARED = "nbopt.measurement.worker", "nbopt.measurement.forkserver"


def workers() -> list[psutil.Process]:
    """Return those that this process has and that still run."""
    found = []
    for child in psutil.Process().children():
        command = command_of(child)
        if PREPARED in command:
            found += [each for each in child.children() if command_of(each)]
        elif ANEW in command:
            found.append(child)
    return found


def command_of(process: psutil.Process) -> list[str]:
    """Return a process's command line, empty where it has ended."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:  # a zombie is one to psutil
        return []
