"""Training: `python train.py` and plain Lightning against hand-written loops, in races."""

from dataclasses import replace
from functools import partial

from courses import prepare_images
from race import ContenderError, Race, race
from rows import DEVICE, FOLDER, IS_DRY, tell_note, tell_row

COURSES = [("mlp", 128, 200), ("resnet", 128, 60), ("mlp", 512, 80)]
"""Networks, images in a batch, and steps of a block, of which an epoch has more."""
DRY_COURSES = [("mlp", 16, 4), ("resnet", 4, 2)]
NAMES = ["compiled", "cuda_graph", "lightning", "vaelab", "vaelab_compiled", "vaelab_bf16"]
DRY_NAMES = {"mlp": ["compiled", "cuda_graph", "vaelab"], "resnet": []}
ROUNDS, SECONDS = 8, 25
"""Rounds at most, and seconds of them after which no further one begins."""


def tell_rows(table: str, found: Race) -> None:
    """Tells a row for each contender that has not failed."""
    for name, times in found.times.items():
        if times.failure:
            continue
        ratio, low, high = found.ratios(name)
        cells = {"": name, "images/s": found.speed(name), "of by_hand": f"{ratio:.2f}"}
        cells["quartiles"] = f"{low:.2f} to {high:.2f}"
        tell_row(table, {**cells, "first step, s": times.first, "rounds": len(times.wall)})


def main() -> None:
    tell_note(
        "All in float32 but vaelab_bf16, which is trainer=gpu. The first step has compilation and "
        "capture in it, of all contenders at once, and of a loop by hand its start on the GPU, too."
    )
    for network, batch_size, steps in DRY_COURSES if IS_DRY else COURSES:
        table = f"{network}, batches of {batch_size}"
        names = DRY_NAMES[network] if IS_DRY else NAMES
        names = [name for name in names if name != "cuda_graph" or DEVICE == "cuda"]
        course = replace(prepare_images(network), batch_size=batch_size)
        try:
            found = race(
                names,
                course,
                FOLDER / f"{network}_{batch_size}",
                rounds=1 if IS_DRY else ROUNDS,
                steps=steps,
                seconds=SECONDS,
                show=partial(tell_rows, table),
            )
        except ContenderError as error:
            tell_note(f"{table}: by_hand failed: {error}")
            continue
        tell_note(f"{table}: rounds of {found.steps} steps, {course.count:,} images")
        for name, times in found.times.items():
            if times.failure:
                tell_note(f"{table}: {name} failed: {times.failure}")


if __name__ == "__main__":
    main()
