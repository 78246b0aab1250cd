"""Run benchmarks by name, or all: ``python -m benchmarks [names] [--quick] [--full]``."""

from __future__ import annotations

import argparse
import os
import pkgutil
import sys
import tempfile
from pathlib import Path

from benchmarks.rounds import Size, run
from lockstep.errors import LockstepError
from lockstep.stage import QUIET

BENCHMARKS = {
    "training_set": "benchmarks.training_set:cases",
    "snapshots": "benchmarks.snapshots:cases",
    "validation": "benchmarks.validation:cases",
}
BY_NAME_ALONE = {"snapshots_100m": "benchmarks.snapshots:hundred_million"}


def main() -> int:
    """Run what the command line names; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", help=f"of {', '.join(BENCHMARKS)}, all by default; {', '.join(BY_NAME_ALONE)}"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the order in which peers take turns")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="size", action="store_const", const=Size.QUICK, help="under half a minute")
    size.add_argument(
        "--full",
        dest="size",
        action="store_const",
        const=Size.FULL,
        help="with a million entity rows, 11 million events and 10 million rows to validate",
    )
    asked = parser.parse_args()
    if unknown := sorted(set(asked.names) - set(known := BENCHMARKS | BY_NAME_ALONE)):
        parser.error(f"no benchmark {unknown[0]!r}: there are {', '.join(known)}")
    os.environ.update(QUIET)
    try:
        for name in asked.names or BENCHMARKS:
            with tempfile.TemporaryDirectory(prefix="lockstep-bench-") as folder:
                cases = pkgutil.resolve_name(known[name])  # by name: one reads the example, which you may replace
                run(name, cases(Path(folder), asked.size or Size.DEFAULT), asked.seed)
    except LockstepError as e:
        print(f"error: {e}", file=sys.stderr)
        return e.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":  # the peers' processes import this file too
    sys.exit(main())
