"""The `nbopt` command: demo, runs, compare, doctor."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from nbopt.errors import NbOptError, OptionError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 0 ok, 1 failure, 2 usage.

    Args:
        arguments: Words after `nbopt`; None takes the process's own.
    """
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.command is None:
        parser.print_help()
        return USAGE
    command: Callable[[argparse.Namespace], int] = chosen.command
    try:
        return command(chosen)
    except NbOptError as error:
        print(f"nbopt: {type(error).__name__}\n{error.message}", file=sys.stderr)
        return USAGE if isinstance(error, OptionError) else FAILED
    except KeyboardInterrupt:
        print("nbopt: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (`nbopt runs | head`) has seen enough; Python would complain once more at exit.
        sys.stderr.close()
        return OK


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="nbopt",
        description="Make the PyTorch or Keras model in your notebook smaller, faster or better, and prove it.",
    )
    parser.add_argument("--version", action="version", version=f"nbopt {version('nbopt')}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    demo = commands.add_parser("demo", help="run the quickstart notebook on real data and print its table")
    demo.add_argument("--epochs", type=_whole, metavar="N", help="epochs of training; the notebook's own by default")
    demo.add_argument("--rows", type=_whole, metavar="N", help="rows of training data")
    demo.add_argument("--seed", type=_whole, metavar="N", help="seed of everything random")
    demo.add_argument(
        "--output", type=Path, default=Path("nbopt-demo"), metavar="DIR", help="folder for what it writes (nbopt-demo)"
    )
    demo.add_argument("--notebook", type=Path, metavar="PATH", help="another notebook, by name or path")
    demo.set_defaults(command=_demo)

    runs = commands.add_parser("runs", help="list the runs that are kept, newest first")
    runs.add_argument("--last", type=_count, metavar="N", help="how many")
    _add_workload(runs)
    runs.set_defaults(command=_runs)

    compare = commands.add_parser("compare", help="print runs of one workload in one table")
    compare.add_argument("names", nargs="*", metavar="NAME", help="runs or recipes; all by default")
    _add_workload(compare)
    compare.set_defaults(command=_compare)

    doctor = commands.add_parser("doctor", help="tell what this machine has and what is missing")
    doctor.add_argument("--json", action="store_true", help="as JSON")
    doctor.set_defaults(command=_doctor)
    return parser


def _add_workload(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workload", metavar="KEY/NAME", help="name of a workload, or first letters of its key")


def _whole(text: str, low: int = 0) -> int:
    try:
        value = int(text)
    except ValueError:
        value = low - 1
    if value < low:
        raise argparse.ArgumentTypeError(f"expected a whole number of {low} or more, came {text}")
    return value


def _count(text: str) -> int:
    return _whole(text, 1)


def _demo(chosen: argparse.Namespace) -> int:
    from nbopt.demo import NOTEBOOK, run_demo, tutorials

    named = chosen.notebook or Path(NOTEBOOK)
    source = named if named.is_file() else tutorials() / named.with_suffix(".ipynb").name
    given = {name: getattr(chosen, name) for name in ("epochs", "rows", "seed")}
    parameters = {name: value for name, value in given.items() if value is not None}
    done = run_demo(source, chosen.output.resolve(), parameters, sys.stderr)
    if done.table:
        print(done.table, end="\n\n")
    print(f"ran {source.name} in {done.seconds:.0f} s\nnotebook  {done.notebook}\nhtml      {done.html}")
    return OK


def _runs(chosen: argparse.Namespace) -> int:
    from nbopt.history import kept_runs, of_workload, run_list

    runs = kept_runs()
    if chosen.workload:
        runs = of_workload(runs, chosen.workload)
    last = runs[-chosen.last :] if chosen.last else runs
    print(run_list(last, by_workload=not chosen.workload))
    return OK


def _compare(chosen: argparse.Namespace) -> int:
    from nbopt.history import compared, kept_runs, newest_workload, of_workload

    runs = kept_runs()
    # One name may have been given to several models, or to one before and after training.
    runs = newest_workload(of_workload(runs, chosen.workload) if chosen.workload else runs)
    print(compared(runs, chosen.names))
    return OK


def _doctor(chosen: argparse.Namespace) -> int:
    from nbopt.doctor import diagnose

    found = diagnose()
    print(json.dumps(found.to_dict(), indent=1) if chosen.json else found)
    return OK if found.ok else FAILED


if __name__ == "__main__":
    sys.exit(main())
