"""Rounds: peers take turns in a seeded random order, each in a process of its own, and are compared within a round.

Machines get busy and warm. What runs side by side, turn by turn, meets the same weather: so the ratio is taken in each
round, and its median and range are shown, never the ratio of two lonely minima.
"""

from __future__ import annotations

import contextlib
import os
import pkgutil
import random
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from enum import Enum
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

Size = Enum("Size", ["QUICK", "DEFAULT", "FULL"])
Call = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True)
class Case:
    """One table.

    Parameters
    ----------
    peers
        By name what prepares a peer: a function as ``module:name``, imported in the peer's own process alone, and its
        arguments. It gives back the work, which is timed. The first peer is Lockstep.
    verdict
        ``module:name`` of what says in a few words what came out: given that and the peer's arguments.
    check
        Judges the verdicts by peer, all different ones of its rounds; raises when Lockstep's answer is wrong.
    warm
        Whether everybody works once before the clock starts.
    """

    title: str
    rounds: int
    peers: Mapping[str, Call]
    verdict: str
    check: Callable[[Mapping[str, str]], None]
    warm: bool = True


class Turn(NamedTuple):
    """One peer in one round."""

    seconds: float
    cpu: float
    peak: int | None
    verdict: str


def run(name: str, cases: Iterable[Case], seed: int) -> None:
    """Run and print the cases of a benchmark; a peer of the same name keeps its process throughout."""
    order = random.Random(f"{name} {seed}")  # noqa: S311 - a shuffle
    with contextlib.ExitStack() as stack:
        workers: dict[str, ProcessPoolExecutor] = {}
        for case in cases:
            for peer in case.peers.keys() - workers.keys():
                workers[peer] = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"), _silent))
            turns = _rounds(case, workers, order)
            print(f"\n{name}: {case.title}; {case.rounds} round{'s' * (case.rounds > 1)}, order of seed {seed}")
            said = {peer: " / ".join(dict.fromkeys(t.verdict for t in taken)) for peer, taken in turns.items()}
            print(*_table(turns, said), sep="\n", flush=True)
            case.check(said)


def _rounds(case: Case, workers: Mapping[str, ProcessPoolExecutor], order: random.Random) -> dict[str, list[Turn]]:
    def start(peer: str) -> Any:
        return workers[peer].submit(_turn, case.peers[peer], case.verdict)

    if case.warm:  # all at once: imports take longer than the work
        for begun in [start(peer) for peer in case.peers]:
            begun.result()
    turns: dict[str, list[Turn]] = {peer: [] for peer in case.peers}
    for _ in range(case.rounds):
        for peer in order.sample(list(case.peers), len(case.peers)):
            turns[peer].append(start(peer).result())
    return turns


def _silent() -> None:
    """Send what the libraries of a peer have to say nowhere; errors travel as exceptions."""
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)


def _turn(call: Call, verdict: str) -> Turn:
    """Prepare, time the work, and judge: in the peer's process."""
    prepare, arguments = call
    work = pkgutil.resolve_name(prepare)(*arguments)
    start, cpu = time.perf_counter(), time.process_time()
    found = work()
    spent = time.perf_counter() - start, time.process_time() - cpu
    return Turn(*spent, _peak(), pkgutil.resolve_name(verdict)(found, *arguments))


def _peak() -> int | None:
    """Return the most MB that this process has had in memory so far, imports included; None where Linux is not."""
    # Not ru_maxrss: a child inherits its parent's.
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) // 1000
    return None


def _table(turns: Mapping[str, list[Turn]], said: Mapping[str, str]) -> Iterator[str]:
    ours = next(iter(turns.values()))
    width = max(map(len, turns))
    clocks = (f"{clock:22}  {'times Lockstep, paired':22}" for clock in ("seconds", "CPU seconds"))
    yield f"  {'':{width}}  {'  '.join(clocks)}  {'peak MB':>7}  answer"
    for peer, taken in turns.items():
        times = (_times([t[n] for t in taken], [t[n] for t in ours]) for n in (0, 1))
        yield f"  {peer:{width}}  {'  '.join(times)}  {taken[-1].peak or '-':>7}  {said[peer]}"


def _times(taken: list[float], ours: list[float]) -> str:
    """Return times and how many times ours they are, round by round."""
    ratio = "1" if taken == ours else _spread([t / o for t, o in zip(taken, ours, strict=True)], 3)
    return f"{_spread(taken, 3):22}  {ratio:22}"


def _spread(values: list[float], digits: int) -> str:
    """Return median, least and most."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}..{max(values):.{digits}f}]"
