"""What a hunt has so far, on disk: the same line goes on after the kernel has died.

What takes long is kept as it comes: each timing, the shared weights, what was looked at.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from dataclasses import dataclass
from pathlib import Path

from nbopt.architectures.exploring import Explored
from nbopt.errors import disk_error
from nbopt.ledger import default_home
from nbopt.techniques._nas.hunting import Hunt

MOST_FILES = 3
"""Hunts that are kept: each may hold the weights of a whole model."""

OF_FILES = (OSError, EOFError, pickle.UnpicklingError)
UNREADABLE = (*OF_FILES, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError)
"""What a damaged file raises, or one of other versions."""


@dataclass(frozen=True)
class Keeper:
    """Keep one hunt in a file.

    Args:
        path: The file. It is a pickle in the user's own store, as the models there are.
    """

    path: Path

    @classmethod
    def of(cls, key: str, text: str, home: Path | None = None) -> Keeper:
        """Return what keeps the hunt of a model by a line's options, in a store's folder or the usual one."""
        digest = hashlib.blake2b(f"{key} {text}".encode(), digest_size=12).hexdigest()
        return cls((home or default_home()) / "searches" / f"nas-{digest}.pickle")

    def keep(self, hunt: Hunt) -> None:
        """Write what there is; a file is whole or not there.

        Raises:
            StoreError: The disk is full, or may not be written.
        """
        framework, model = hunt.context.workload.framework, hunt.family.model
        found = {
            "timings": hunt.timings,
            "looks": () if hunt.seen is None else hunt.seen.looks,
            "state": framework.state(model) if hunt.shared else None,
        }
        new = self.path.with_suffix(f".{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with new.open("wb") as file:
                pickle.dump(found, file)
            new.replace(self.path)
            files = sorted(self.path.parent.glob("nas-*.pickle"), key=lambda each: each.stat().st_mtime)
            for old in files[:-MOST_FILES]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise disk_error(error, str(self.path.parent), "set NBOPT_HOME to a folder with more") from error
        finally:
            new.unlink(missing_ok=True)

    def restore(self, hunt: Hunt) -> None:
        """Put into a hunt what was kept of it, if anything was, and say so in its notes."""
        if not self.path.exists():
            return
        try:
            with self.path.open("rb") as file:
                found = pickle.load(file)
            timings, looks, state = found["timings"], found["looks"], found["state"]
            if state is not None:
                hunt.context.workload.framework.load_state(hunt.family.model, state)
        except UNREADABLE as error:
            hunt.notes.append(f"what an earlier search kept can't be read ({type(error).__name__}): it begins anew")
            return
        hunt.timings, hunt.shared = timings, state is not None
        hunt.seen = Explored(looks) if looks else None
        what = [f"{len(timings)} candidates timed", *(["shared weights"] if state is not None else [])]
        what += [f"{len(looks)} looked at"] if looks else []
        hunt.notes.append(f"went on from what an earlier kernel had: {', '.join(what)}")

    def forget(self) -> None:
        """Remove the file of a hunt that has ended."""
        self.path.unlink(missing_ok=True)
