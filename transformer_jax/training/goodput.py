"""Where the time of a run goes, over all processes that worked on it one after the other.

Kept in three places: in memory, in every checkpoint (`Clock.goodput`), and in RUN/goodput.json, which is written about
once a second, so that a process that continues knows how far the dead one had got: what that one did after the
checkpoint that is continued is `lost`.
"""

import contextlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any

from transformer_jax.training import reporting

FILE = "goodput.json"
PHASES = {
    "startup": "start-up",
    "compile": "compile",
    "data_wait": "data wait",
    "step": "step",
    "evaluation": "evaluation",
    "save": "save",
    "lost": "lost steps",
    "idle": "idle between processes",
}
_REPEATED = ("data_wait", "step", "evaluation", "save")
"""What has to be done again after a step was lost. Start-up and compilation are what they are."""
_born: list[float] = []


def process_age() -> float:
    """Seconds since this process began; 0 from the second call on, for a run that is not its first has no start-up
    before it, and where the system does not tell."""
    if _born:
        return 0.0
    _born.append(time.time())
    try:
        ticks = pathlib.Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19]
        uptime = float(pathlib.Path("/proc/uptime").read_text().split()[0])
        return max(0.0, uptime - int(ticks) / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return 0.0


class Goodput:
    """The clock. It is always in one phase; `age` is for how long it has been in the first, start-up, already.

    `file` is where it leaves word of itself (`leave`), on the process that writes.
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | None = None,
        *,
        age: float = 0.0,
        now: Callable[[], float] = time.perf_counter,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._file = None if file is None else pathlib.Path(file)
        self._now, self._wall = now, wall
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._lost_steps, self._starts = 0, 1
        self._since, self._left = now() - age, float("-inf")
        self.phase = "startup"

    def enter(self, phase: str) -> None:
        """From now on it is `phase`."""
        now = self._now()
        self._seconds[self.phase] += now - self._since
        self.phase, self._since = phase, now

    @contextlib.contextmanager
    def during(self, phase: str) -> Generator[None, None, None]:
        """Within this context it is `phase`."""
        before = self.phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def shift(self, phase: str, seconds: float) -> None:
        """`seconds` of the phase it is were of another one, as is known afterwards only."""
        self._seconds[phase] += seconds
        self._seconds[self.phase] -= seconds

    def totals(self) -> dict[str, float]:
        """Seconds by phase (`PHASES`), `lost_steps`, and `starts`: the number of processes that worked on the run."""
        seconds = dict(self._seconds)
        seconds[self.phase] += self._now() - self._since
        return {
            **{name: round(value, 3) for name, value in seconds.items()},
            "lost_steps": self._lost_steps,
            "starts": self._starts,
        }

    def share(self) -> float:
        """Seconds of steps that were kept over all seconds in which a process was at work."""
        totals = self.totals()
        held = sum(totals[name] for name in PHASES if name != "idle")
        return totals["step"] / held if held > 0 else 0.0

    def leave(self, step: int, *, now: bool = False) -> None:
        """Writes where the run stands to the file, at most once a second unless `now`."""
        if self._file is None or (not now and self._now() - self._left < 1.0):
            return
        self._left = self._now()
        partial = self._file.with_name(f"{self._file.name}.tmp")
        partial.write_text(json.dumps({"step": step, "wall": round(self._wall(), 3), "totals": self.totals()}))
        os.replace(partial, self._file)

    def continues(self, saved: Mapping[str, float], step: int, here: bool = True) -> None:
        """Goes on from the totals of the checkpoint that is continued, at `step`; none of a run that begins.

        `here`: the process before worked in the same folder, and its last word is in the file.
        """
        before, reached = saved, step
        left = read(self._file) if here and self._file is not None else None
        if left is not None and left["step"] >= step:
            before, reached = left["totals"], left["step"]
            self._seconds["idle"] += max(0.0, self._wall() - left["wall"] - (self._now() - self._since))
        for name in PHASES:
            self._seconds[name] += before.get(name, 0.0)
        if reached > step:
            for name in _REPEATED:
                again = max(0.0, before.get(name, 0.0) - saved.get(name, 0.0))
                self._seconds[name] -= again
                self._seconds["lost"] += again
        self._lost_steps += int(before.get("lost_steps", 0)) + reached - step
        self._starts += int(before.get("starts", 0))

    def text(self) -> str:
        """One line for people: where the time went, largest first."""
        totals = self.totals()
        held = sum(totals[name] for name in PHASES if name != "idle") or 1.0
        parts = [
            f"{words} {reporting.duration(totals[name])} ({totals[name] / held:.0%})"
            for name, words in sorted(PHASES.items(), key=lambda item: -totals[item[0]])
            if name != "idle" and totals[name] >= 0.005 * held
        ]
        lost = f"; {totals['lost_steps']} steps lost" if totals["lost_steps"] else ""
        starts = f" over {totals['starts']} starts" if totals["starts"] > 1 else ""
        idle = f"; {reporting.duration(totals['idle'])} {PHASES['idle']}" if totals["idle"] >= 1 else ""
        return f"Goodput {self.share():.0%} of {reporting.duration(held)}{starts}: {', '.join(parts)}{lost}{idle}."


def read(file: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What the process before left in `file`; None when it left nothing that can be read."""
    try:
        left = json.loads(pathlib.Path(file).read_text())
        left["step"], left["wall"] = int(left["step"]), float(left["wall"])
        left["totals"] = {name: float(value) for name, value in left["totals"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return left
