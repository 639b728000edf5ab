"""The process that runs trials for a pool: `python -m nbopt.studies.worker OBJECTIVE NUMBER`."""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

from nbopt.errors import NbOptError
from nbopt.studies.choosing import Chooser
from nbopt.studies.extra import load, quiet
from nbopt.studies.opening import Opened, storage_of
from nbopt.studies.repeating import repeat
from nbopt.studies.trials import begin, run_trial


def main() -> None:
    """Load the objective, then run what the parent asks for until it closes its end."""
    # What the objective prints must not come between the messages: only this copy of the standard output has them.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    requests: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, requests), daemon=True).start()
    number = int(sys.argv[2])
    try:
        objective, where = pickle.loads(Path(sys.argv[1]).read_bytes())
        storage = storage_of(where)
    except Exception as error:  # noqa: BLE001 - a module that is missing, or whatever unpickling runs: the parent tells it
        text = error.one_line if isinstance(error, NbOptError) else f"{type(error).__name__}: {error}"
        _send(channel, {"error": text})
        return
    choosers: dict[str, tuple[Opened, Chooser]] = {}
    with quiet():
        while True:
            asked = requests.get()
            running = asked["running"]
            if "params" in asked:
                _send(channel, {"began": asked["number"]})
                outcome = repeat(objective, asked["params"], asked["seed"], objectives=asked["objectives"])
                _send(channel, {"ended": asked["number"], "outcome": outcome})
                continue
            if asked["study"] not in choosers:
                study = load().load_study(study_name=asked["study"], storage=storage)
                opened = Opened(study, storage, where)
                choosers[asked["study"]] = opened, Chooser(opened, running, number + 1)
            opened, chooser = choosers[asked["study"]]
            chooser.prepare()
            trial = begin(opened, running.seed)
            _send(channel, {"began": trial.number})
            outcome = run_trial(opened, trial, objective, limits=running.limits)
            _send(channel, {"ended": trial.number, "outcome": outcome})


def _listen(stream: BinaryIO, requests: queue.Queue[Any]) -> None:
    """Take what the parent sends; when it is gone, end at once, also in the middle of a trial that may hang."""
    while True:
        try:
            requests.put(pickle.load(stream))
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(0)


def _send(channel: BinaryIO, message: dict[str, Any]) -> None:
    channel.write(pickle.dumps(message))
    channel.flush()


if __name__ == "__main__":
    main()
