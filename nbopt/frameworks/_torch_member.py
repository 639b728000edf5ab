"""One process of a torch training by several: `python -m nbopt.frameworks._torch_member PAYLOAD`."""

from __future__ import annotations

import os
import pickle
import queue
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO

import cloudpickle

AHEAD = 2
"""Batches that wait in a process; the kernel waits with those that follow, so that an epoch does not pile up here."""


def main() -> None:
    """Train the model of a payload with the other processes, on what the kernel sends."""
    # What the model prints must not come between the messages: only this copy of the standard output has them.
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def send(what: str, value: Any) -> None:
        channel.write(cloudpickle.dumps((what, value)))
        channel.flush()

    incoming: queue.Queue[Any] = queue.Queue(AHEAD)
    threading.Thread(target=_listen, args=(sys.stdin.buffer, incoming), daemon=True).start()
    from nbopt.errors import NbOptError

    try:
        record = _train(pickle.loads(Path(sys.argv[1]).read_bytes()), incoming, send)
    except NbOptError as error:
        send("error", error)
    except Exception as error:  # noqa: BLE001 - whatever the user's model raises: the kernel tells it
        send("crash", f"{type(error).__name__}: {error}")
    else:
        send("done", record)
    channel.close()
    # The others may still be at it, or gone: an orderly exit waits for them, or complains.
    os._exit(0)


def _train(payload: dict[str, Any], incoming: queue.Queue[Any], send: Any) -> Any:
    from datetime import timedelta

    from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs

    from nbopt.data import Split
    from nbopt.frameworks import Fitting
    from nbopt.frameworks._torch_crew import Fed, Member
    from nbopt.frameworks._torch_fit import fit
    from nbopt.progress import silent

    rank, cpu = int(os.environ["RANK"]), payload["cpu"]
    # Of processes on CPUs Accelerate tells torch the number of each, and torch takes it but once.
    numbered = "" if cpu else f"?rank={rank}&world_size={os.environ['WORLD_SIZE']}"
    group = InitProcessGroupKwargs(
        backend="gloo" if cpu else "nccl",
        # A file and not a port, which another process may take before this one does.
        init_method=payload["meeting"] + numbered,
        timeout=timedelta(minutes=10),
    )
    # A model may have branches that a batch does not take; statistics of BatchNorm are averaged where it is judged.
    wrapping = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    accelerator = Accelerator(cpu=cpu, mixed_precision="no", kwargs_handlers=[group, wrapping])
    model, plan = payload["model"], payload["plan"]
    wrapped = accelerator.prepare_model(model)
    main = accelerator.is_main_process
    fitting = Fitting(
        Split(Fed(incoming, payload["steps"]), "train"),
        payload["loss"],
        progress=(lambda progress: send("progress", progress)) if main else silent,
    )
    # Dropout must not drop the same units in every process.
    plan = plan.adjusted(seed=plan.seed + 1_000_003 * rank, devices=1, max_seconds=None)
    return fit(model, plan, fitting, Member(accelerator, wrapped, incoming, send))


def _listen(stream: BinaryIO, incoming: queue.Queue[Any]) -> None:
    """Take what the kernel sends; when it is gone, end at once, also in the middle of a step."""
    while True:
        try:
            incoming.put(pickle.load(stream))
        except (EOFError, OSError, pickle.UnpicklingError):
            os._exit(0)


if __name__ == "__main__":
    main()
