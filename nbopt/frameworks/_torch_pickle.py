"""A torch module as a pickle, code and weights together: neither brings along, nor overwrites, what is the notebook's.

cloudpickle writes classes of a notebook by value: each method with the variables that it reads. Measured on 3.1.2
with a net of 1.0 MB: a class that keeps its loop, `for x, y in train_loader`, in a method made a file of 42 MB with all
rows of train in it; one whose `__init__` takes a `backbone` of the notebook held that twice. And to read such a file in
the kernel that wrote it sets each attribute of the live class anew, to copies that no longer see the notebook's
variables.
"""

from __future__ import annotations

import builtins
import dis
import importlib
import inspect
import io
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping, Set
from functools import cached_property, partial, partialmethod
from types import BuiltinFunctionType, CodeType, FrameType, FunctionType, MethodType, ModuleType
from typing import IO, Any

import cloudpickle
import torch

from nbopt.frameworks._torch_code import ByValue

LIGHT = (ModuleType, type, FunctionType, BuiltinFunctionType, int, float, complex, str, type(None))
"""What a method may bring along: code and constants."""


def dump(
    model: torch.nn.Module, file: IO[bytes], run: Callable[[], Any] | None = None, code: ByValue | None = None
) -> None:
    """Write a model; of its classes' methods those are left out that bring data along and serve no forward pass.

    Args:
        model: The model.
        file: Where to.
        run: Makes one forward pass, of a copy: what it calls is written, by whatever way it gets there.
        code: Told of the code that is written, and says which goes by value.
    """
    left_out = unneeded(model)
    if left_out and run is not None:
        left_out = unneeded(model, _ran(run))
    _Pickler(file, left_out, code).dump(model)


def load(written: bytes) -> Any:
    """Read what `dump` wrote; a class that is in this process already stays as it is."""
    return _Unpickler(io.BytesIO(written)).load()


def without_watchers(model: torch.nn.Module) -> torch.nn.Module:
    """Return a model without the hooks by which transformers (5) hands out hidden states, in place.

    They read a context variable, which no pickle takes, and are put in again where hidden states are asked for.
    """
    for part in model.modules():
        for number, hook in list(part._forward_hooks.items()):
            if getattr(hook, "__module__", "") == "transformers.utils.output_capturing":
                del part._forward_hooks[number]
                part._forward_hooks_with_kwargs.pop(number, None)
                part._forward_hooks_always_called.pop(number, None)
        if getattr(part, "_output_capturing_hooks_installed", False):
            part._output_capturing_hooks_installed = False
    return model


class _Pickler(cloudpickle.Pickler):
    def __init__(self, file: IO[bytes], left_out: Mapping[FunctionType, str], code: ByValue | None) -> None:
        super().__init__(file)
        self._left_out, self._code = left_out, code

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, FunctionType) and obj in self._left_out:
            obj = _stand_in(obj.__qualname__, self._left_out[obj])
        if self._code is not None and isinstance(obj, (type, FunctionType)):
            self._code.meet(str(obj.__module__))
        if self._code is not None and isinstance(obj, ModuleType) and self._code.imports(obj.__name__):
            return importlib.import_module, (obj.__name__,)
        return super().reducer_override(obj)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = super().find_class(module, name)
        if name != "_class_setstate" or not module.startswith("cloudpickle"):
            return found

        def fill(made: type, state: tuple[dict[str, Any], Any]) -> type:
            # cloudpickle gives back the live class where it knows it; one that it has just made has no methods yet.
            complete = state[0].keys() - {"_abc_impl"} <= vars(made).keys()
            filled: type = made if complete else found(made, state)
            return filled

        return fill


def _stand_in(name: str, data: str) -> FunctionType:
    """Return a function in a method's place, which says why it is not there."""
    text = f"{name} is not in this file: it reads {data} of the notebook, and the forward pass does without it"

    def left_out(*_: Any, **__: Any) -> Any:
        raise NotImplementedError(text)

    # A function of nowhere, so that it goes by value and with no path of this machine.
    return FunctionType(
        left_out.__code__,
        {"__name__": "__main__", "__builtins__": builtins},
        name.rpartition(".")[2],
        None,
        left_out.__closure__,
    )


def _ran(run: Callable[[], Any]) -> set[CodeType]:
    """Return the code of all Python functions that `run` calls in this thread; none where a profiler is at work."""
    ran: set[CodeType] = set()
    if sys.getprofile() is not None:  # that of the C library can't be put back
        return ran

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            ran.add(frame.f_code)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return ran


def unneeded(model: torch.nn.Module, ran: Set[CodeType] = frozenset()) -> dict[FunctionType, str]:
    """Return methods of the model's classes that read data of a notebook and that no forward pass can reach.

    Reached is whatever has a name, of a method or a function, that occurs in code that is reached, from `forward`,
    properties, special methods, those that torch's own classes call and functions that a layer holds on: rather too
    much than too little.

    Args:
        model: The model.
        ran: Code that ran in a forward pass.

    Returns:
        For each the names of that data.
    """
    kinds = {c for part in model.modules() for c in type(part).__mro__}
    classes = {c for c in kinds if c.__module__.partition(".")[0] != "torch"}
    methods: dict[str, list[FunctionType]] = {}
    reached: list[FunctionType] = []
    for name, value in ((name, value) for c in classes for name, value in vars(c).items()):
        function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
        if isinstance(function, FunctionType):
            methods.setdefault(name, []).append(function)
        else:
            reached += _held(value)
    by_torch = {name for c in kinds - classes - {torch.nn.Module} for name in vars(c)} | {"forward"}
    for name, functions in methods.items():
        if name != "__init__" and (name in by_torch or name.startswith("__")):
            reached += functions
    reached += [function for each in methods.values() for function in each if function.__code__ in ran]
    for part in model.modules():
        reached += _held(vars(part))
    makers = {"type", "__class__", "__init__", *(c.__name__ for c in classes)}
    seen: set[FunctionType] = set()
    while reached:
        function = reached.pop()
        if function in seen:
            continue
        seen.add(function)
        for name in _names(function):
            reached += methods.get("__init__" if name in makers else name, [])
            if isinstance(function.__globals__.get(name), FunctionType):
                reached.append(function.__globals__[name])
        reached += _inner(function)
    others = {f for each in methods.values() for f in each} - seen
    return {f: data for f in others if (data := ", ".join(sorted(_data(f, set()))))}


def _held(value: Any) -> list[FunctionType]:
    """Return the functions in what a class or a layer holds: bound methods, hooks, wrapped ones, tables of them."""
    found, seen, waiting = [], {id(value)}, [value]
    while waiting:
        value = waiting.pop()
        inner: list[Any] = []
        if isinstance(value, FunctionType):
            found.append(value)
        elif isinstance(value, MethodType):
            inner = [value.__func__]
        elif isinstance(value, property):
            inner = [value.fget, value.fset, value.fdel]
        elif isinstance(value, (partial, partialmethod, cached_property)):
            inner = [value.func]
        elif isinstance(value, Mapping):
            inner = list(value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            inner = list(value)
        elif not isinstance(value, (type, torch.nn.Module)):
            inner = [inspect.getattr_static(value, "__wrapped__", None)]  # by lru_cache
        waiting += [each for each in inner if id(each) not in seen]
        seen |= {id(each) for each in inner}
    return found


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a function's code and that of the functions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _names(function: FunctionType) -> set[str]:
    """Return all names and texts in a function's code: `getattr(self, "name")` counts."""
    return {
        name
        for code in _codes(function.__code__)
        for name in (*code.co_names, *code.co_consts)
        if isinstance(name, str)
    }


def _inner(function: FunctionType) -> list[FunctionType]:
    """Return the functions that a function closes over: what a decorator wraps."""
    cells = [] if function.__closure__ is None else function.__closure__
    held = [*inspect.getclosurevars(function).nonlocals.values()] if cells else []
    return [value for value in held if isinstance(value, FunctionType)]


def _data(function: FunctionType, seen: set[FunctionType]) -> set[str]:
    """Return the names of the data that a function reads as global variables, also by way of other functions."""
    seen.add(function)
    found = set()
    for code in _codes(function.__code__):
        for name in {each.argval for each in dis.get_instructions(code) if each.opname == "LOAD_GLOBAL"}:
            value = function.__globals__.get(name)
            if isinstance(value, FunctionType) and value.__module__ == function.__module__ and value not in seen:
                found |= _data(value, seen)
            elif not isinstance(value, (*LIGHT, torch.device, torch.dtype)):
                found.add(name)
    for inner in _inner(function):
        if inner not in seen:
            found |= _data(inner, seen)
    return found
