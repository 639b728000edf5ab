"""Train a torch module in several processes by Accelerate: the kernel's side.

Processes are fresh ones: Accelerate's `notebook_launcher` forks the kernel, which neither OpenMP nor CUDA survives once
it was used, and `torch.multiprocessing.spawn` runs the user's script again. The kernel reads the data, whatever form it
has, once and in the order of a training in one process, and deals each batch out; it judges after each epoch, so that
one decision holds for all. The processes average gradients among themselves.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import torch

from nbopt.children import advice, cores, end, environment_of, epitaph
from nbopt.errors import MissingExtra, ModelError, NbOptError, OptionError, TrainingError
from nbopt.frameworks import Fitting
from nbopt.frameworks._sharing import shares
from nbopt.frameworks._torch_fit import loss_on
from nbopt.frameworks._torch_module import device_of, state_of
from nbopt.frameworks._torch_norms import NORMS
from nbopt.frameworks._torch_random import seeded
from nbopt.frameworks._watching import Watch
from nbopt.training import TrainingPlan, TrainingRecord

LAST_WORDS_SECONDS = 1.0
"""How long the others may take to tell what happened when one process fails: it may only have lost its partner."""


def check(model: torch.nn.Module, plan: TrainingPlan, *, held: bool) -> None:
    """Refuse a training that can't be shared by so many processes.

    Raises:
        OptionError: Devices are missing, or another step of the recipe needs one process.
        ModelError: The model lies on several devices already.
        MissingExtra: Accelerate is not installed.
    """
    if find_spec("accelerate") is None:
        raise MissingExtra("accelerate", "accelerate", "training on several devices")
    places = {str(parameter.device) for parameter in model.parameters()}
    if len(places) > 1:
        raise ModelError("a model on one device, to be copied to others", f"one on {', '.join(sorted(places))}")
    kind = torch.device(device_of(model)).type
    there = {"cuda": torch.cuda.device_count(), "cpu": cores()}.get(kind, 1)
    if plan.devices > there:
        what = {"cuda": "GPUs that torch sees", "cpu": "cores that this process may use"}.get(kind, kind)
        raise OptionError(f"--devices up to {there}", f"{plan.devices}; there are {there} {what}", f"--devices {there}")
    if held:
        raise OptionError(
            "--devices with steps that leave the weights to the training",
            "one that changes them after each step (single weights that prune keeps at zero, or prunes on the way)",
            "leave --devices out, or prune --structured",
        )
    if plan.teacher is not None:
        raise OptionError(
            "--devices with training on labels",
            "a teacher, which answers in one process",
            "leave --devices out of a recipe with distill",
        )
    averaged = plan.schedule if plan.schedule == "schedule_free" else plan.averaging
    if averaged in ("schedule_free", "swa") and any(isinstance(module, NORMS) for module in model.modules()):
        raise OptionError(
            f"--devices without {averaged}, for a model with BatchNorm",
            f"{averaged}, which measures BatchNorm's statistics again in one process",
            "leave --devices out, or take --averaging ema or another schedule",
        )


def fit(model: torch.nn.Module, plan: TrainingPlan, fitting: Fitting) -> TrainingRecord:
    """Train `model` in place; on return, and on interrupt, it has the best state so far and is in evaluation mode.

    Raises:
        DataError: As in one process.
        TrainingError: Likewise, or a process ended.
        OptionError: The plan can't be carried out in several processes.
        ModelError: The model or its loss can't be given to another process.
        MissingExtra: Accelerate is not installed.
    """
    check(model, plan, held=bool(fitting.hold or fitting.pace or fitting.each_step))
    start = time.perf_counter()
    watch = Watch(plan, fitting, lambda: state_of(model), lambda split: loss_on(model, split, fitting))
    rng = np.random.default_rng(plan.seed)
    stopped, epochs, most = "", 0, 0
    limit = math.inf if plan.max_seconds is None else plan.max_seconds
    with Processes(model, plan, fitting) as processes, seeded(plan.seed, device_of(model)):
        try:
            model.eval()
            watch.look(model, 0, done=0.0)
            for epoch in range(plan.epochs):
                for batch in fitting.split.training_batches(plan.batch_size, rng):
                    most = max(most, batch.rows)
                    processes.deal(shares(batch, plan.devices))
                    if time.perf_counter() - start > limit:
                        break
                processes.tell(None)
                model.load_state_dict(processes.wait("judge"))
                epochs = epoch + 1
                # What was dealt out took its time since then.
                over = time.perf_counter() - start > limit
                late = f"max_seconds {limit:g} reached in epoch {epochs}" if over else ""
                why = watch.look(model, epochs, done=1.0 if late else epochs / plan.epochs)
                stopped = late or why
                processes.tell((stopped, watch.value))
                if stopped:
                    break
            told: TrainingRecord = processes.wait("done")
        finally:
            if watch.best_state is not None:
                model.load_state_dict(watch.best_state)
    return TrainingRecord(
        epochs=epochs,
        seconds=time.perf_counter() - start,
        kept_epoch=watch.kept_epoch(epochs),
        losses=told.losses,
        scores=tuple(watch.scores),
        stopped=stopped,
        rates=told.rates,
        valid_losses=tuple(watch.valid_losses),
        mixed=told.mixed,
        shared=_shared(model, plan, most),
    )


def _shared(model: torch.nn.Module, plan: TrainingPlan, rows: int) -> str:
    """Return how the processes shared the training, as a sentence."""
    where = "a GPU each" if device_of(model).startswith("cuda") else f"{max(1, cores() // plan.devices)} threads each"
    norms = any(isinstance(module, NORMS) for module in model.modules())
    return (
        f"trained in {plan.devices} processes, {where} (Accelerate {version('accelerate')}): a step is {rows:,} rows "
        f"as in one process, {-(-rows // plan.devices):,} or fewer in each"
        + ("; BatchNorm took each process's own rows, and its statistics are their mean" if norms else "")
    )


class Processes:
    """Be the processes of one training, from their start to their end.

    Args:
        model: What trains; each process has a copy.
        plan: How many there are, and what they do.
        fitting: Has the loss and the data.

    Raises:
        ModelError: The model or its loss can't be given to another process.
    """

    def __init__(self, model: torch.nn.Module, plan: TrainingPlan, fitting: Fitting) -> None:
        self._progress = fitting.progress
        self._events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._failures: list[tuple[int, Any]] = []
        self._ending = False
        self._members: list[tuple[subprocess.Popen[bytes], Any]] = []
        self._folder = tempfile.TemporaryDirectory(prefix="nbopt-processes-")
        try:
            payload = Path(self._folder.name) / "payload.pickle"
            cpu = device_of(model) == "cpu"
            payload.write_bytes(
                _pickled(
                    model,
                    plan=plan,
                    loss=fitting.loss,
                    steps=fitting.split.steps(plan.batch_size),
                    cpu=cpu,
                    meeting=(Path(self._folder.name) / "meeting").as_uri(),
                )
            )
            for rank in range(plan.devices):
                self._start(payload, rank, plan.devices, cpu=cpu)
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process, log in self._members:
            end(process)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):  # what was not read any more
                        stream.close()
            log.close()
        self._folder.cleanup()

    def deal(self, parts: list[Any]) -> None:
        """Send each process its share.

        Raises:
            NbOptError: A process failed.
        """
        for rank, part in enumerate(parts):
            self._send(rank, part)
        with contextlib.suppress(queue.Empty):
            while True:
                self._take(self._events.get_nowait())

    def tell(self, message: Any) -> None:
        """Send all processes the same.

        Raises:
            NbOptError: A process failed.
        """
        for rank in range(len(self._members)):
            self._send(rank, message)

    def wait(self, what: str) -> Any:
        """Return the next message of a kind.

        Raises:
            NbOptError: A process failed.
        """
        while True:
            kind, value = self._events.get()
            if kind == what:
                return value
            self._take((kind, value))

    def _take(self, event: tuple[str, Any]) -> None:
        kind, value = event
        if kind == "failed":
            raise self._failure()
        if kind == "progress":
            self._progress(value)

    def _send(self, rank: int, message: Any) -> None:
        stdin = self._members[rank][0].stdin
        assert stdin is not None
        try:
            pickle.dump(message, stdin, protocol=pickle.HIGHEST_PROTOCOL)
            stdin.flush()
        except BrokenPipeError:
            raise self._failure() from None

    def _failure(self) -> NbOptError:
        """Return the error of the process that knows best what happened."""
        time.sleep(LAST_WORDS_SECONDS)
        told = next((what for _, what in self._failures if isinstance(what, NbOptError)), None)
        if told is not None:
            return told
        # One that was killed says nothing, and then the others say that it is gone.
        rank, words = min(self._failures, key=lambda failure: bool(failure[1]))
        came = words or epitaph(*self._members[rank])
        do = "leave --devices out" if words else advice(came)
        return TrainingError(f"{len(self._members)} processes that train together", f"process {rank + 1}: {came}", do)

    def _start(self, payload: Path, rank: int, count: int, *, cpu: bool) -> None:
        log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        process = subprocess.Popen(
            [sys.executable, "-m", "nbopt.frameworks._torch_member", str(payload)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=_environment(rank, count, cpu=cpu),
            start_new_session=True,  # Ctrl-C in a terminal goes to the whole session: the kernel decides here
        )
        self._members.append((process, log))
        threading.Thread(target=self._listen, args=(rank, process), daemon=True, name="nbopt-member").start()

    def _listen(self, rank: int, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        kind, value = "", None
        while kind not in ("done", "error", "crash"):
            try:
                kind, value = pickle.load(process.stdout)
            except (EOFError, ValueError, OSError, pickle.UnpicklingError):  # ended, also in the middle of a message
                kind, value = "crash", ""
            except (AttributeError, ImportError) as error:  # nbopt was changed under a running kernel
                kind, value = "crash", f"what it says can't be read here ({error}): restart the kernel"
            if rank == 0 and kind in ("progress", "judge", "done"):
                self._events.put((kind, value))
        if kind == "done" or self._ending:
            return
        self._failures.append((rank, value))
        self._events.put(("failed", rank))
        # The kernel may be waiting for one of the others to take a batch, and that one for this one.
        time.sleep(LAST_WORDS_SECONDS / 2)
        self._ending = True
        for other, _ in self._members:
            end(other)


def _pickled(model: torch.nn.Module, **parts: Any) -> bytes:
    """Return the model, without its device, and what else a process is given.

    Raises:
        ModelError: It can't be given to another process.
    """
    where = device_of(model)
    try:
        return cloudpickle.dumps({"model": model.cpu(), **parts})
    except Exception as error:
        # TypeError, PicklingError, AttributeError, and whatever an object's own __reduce__ raises.
        raise ModelError(
            "a model and a loss that can be given to another process",
            f"{type(error).__name__}: {error}",
            "leave --devices out; or take out what can't be pickled (open files, locks, parametrizations)",
        ) from error
    finally:
        model.to(where)


def _environment(rank: int, count: int, *, cpu: bool) -> dict[str, str]:
    """Return what Accelerate finds in a process's environment: what torchrun would put there, for one machine."""
    threads = max(1, cores() // count)
    inherited = {name: value for name, value in environment_of(threads).items() if not name.startswith("ACCELERATE_")}
    places = {"RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)}
    # DistributedDataParallel advises against looking for unused weights, and its advice would be the last words of a
    # process that was killed.
    places["TORCH_CPP_LOG_LEVEL"] = "ERROR"
    if cpu:
        loopback = "lo0" if sys.platform == "darwin" else "lo"
        # By default gloo asks for the machine's name, which need not have an address.
        return {"GLOO_SOCKET_IFNAME": loopback, **inherited, **places}
    # Each process sees one GPU, as its first: tensors of the loss that lie on the first one then come to its own.
    seen = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(count)))
    return {**inherited, **places, "LOCAL_RANK": "0", "CUDA_VISIBLE_DEVICES": seen.split(",")[rank]}
