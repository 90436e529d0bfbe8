"""A contender's side of a race: it trains when it is told to, and says how long that took.

Over two pipes of its own, so that it may print what it likes, and a line a message:

    contender   ready 2.1        it has warmed up; seconds to the end of its first step
    race        go 100
    contender   0.1312 0.1305    wall and process seconds of these 100 steps
    race        end
    contender   512000000        its peak resident memory in bytes; then it ends

It needs nothing but Python, since it is imported in environments of others too.
"""

import json
import os
import resource
from time import perf_counter, process_time
from typing import Any, NoReturn

WARM_UP = 10  # steps

SETTINGS: dict[str, Any] = json.loads(os.environ.get("RACE", "{}"))  # see `race.Contender`


class Turns:
    """Counts the steps of a loop, which calls `step_taken` after each, and holds it in between."""

    def __init__(self) -> None:
        hears, says = SETTINGS["pipes"]
        self.heard, self.said = os.fdopen(hears), os.fdopen(says, "w", buffering=1)
        self.steps = self.left = WARM_UP
        self.warm = False
        self.first = 0.0
        self.start()

    def step_taken(self) -> None:
        if not self.first:
            synchronise()
            self.first = perf_counter() - self.began[0]
        self.left -= 1
        if self.left == 0:
            self.hand_over()
        elif self.left == self.steps:
            self.start()

    def interrupted(self) -> None:
        """Something else came between the steps: they are counted anew from the next on."""
        if self.warm:
            self.left = self.steps + 1

    def start(self) -> None:
        self.began = perf_counter(), process_time()

    def hand_over(self) -> None:
        """Says how long the steps took, and waits to be told of more."""
        synchronise()
        wall, process = perf_counter() - self.began[0], process_time() - self.began[1]
        print(f"{wall} {process}" if self.warm else f"ready {self.first}", file=self.said)
        order, *steps = self.heard.readline().split() or ["end"]
        if order == "end":
            self.end()
        self.warm = True
        self.steps = self.left = int(steps[0])
        self.start()

    def end(self) -> NoReturn:
        """Ends at once: nothing of what a training leaves at its end is wanted."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
        print(peak, file=self.said)
        os._exit(0)


def synchronise() -> None:
    if SETTINGS["device"] == "cuda":
        import torch

        torch.cuda.synchronize()
