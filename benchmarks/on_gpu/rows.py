"""A section's side: its settings, the rows that it tells, and a clock for work on a device.

Whatever libraries print, a section tells what it found in a file of its own, a line a row.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

SETTINGS = json.loads(os.environ["ON_GPU"])
DEVICE, IS_DRY, FOLDER = SETTINGS["device"], SETTINGS["dry"], Path(SETTINGS["folder"])


def tell(line: dict[str, Any]) -> None:
    """Appends a line to the file of rows."""
    with Path(SETTINGS["rows"]).open("a") as file:
        file.write(json.dumps(line) + "\n")


def tell_row(table: str, cells: dict[str, Any]) -> None:
    """Tells a row of a table, by its title; a row of the same first cell takes its place."""
    tell({"table": table, "cells": cells})


def tell_note(text: str) -> None:
    """Tells a sentence that goes below the tables."""
    tell({"note": text})


def synchronise() -> None:
    """Waits for the device."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def seconds_of(action: Callable[[], Any], repeats: int) -> float:
    """Returns the median wall seconds of an action and its work on the device, after a warm-up."""
    found = []
    for _ in range(1 + repeats):
        synchronise()
        began = perf_counter()
        action()
        synchronise()
        found.append(perf_counter() - began)
    return median(found[1:])
