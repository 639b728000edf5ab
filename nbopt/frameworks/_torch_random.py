"""Random numbers of torch that are nbopt's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """Seed the generators of the CPU and of one device, and give the user's random state back afterwards.

    Not by `torch.manual_seed`, which seeds those of all devices: the user's noise on another one would start anew.
    """
    own = torch.device(device)
    with torch.random.fork_rng(devices=[own] if own.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if own.type == "cuda":
            with torch.cuda.device(own):
                torch.cuda.manual_seed(seed)
            yield
        elif own.type == "mps":
            before = torch.mps.get_rng_state()
            torch.mps.manual_seed(seed)
            try:
                yield
            finally:
                torch.mps.set_rng_state(before)
        else:
            yield
