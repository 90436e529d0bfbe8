"""`SharedData`: images that one command reads once for all runs with the same data settings."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from vaelab.data import Images, Numbers

T = TypeVar("T")
TRAINING_ONLY = ("batch_size", "seed", "balance", "flip", "shift", "in_memory", "window")
"""Settings of our data modules that change only how training images are drawn, not which they are.
"""


class SharedData:
    """The images of the run that was loaded last, which the next run may take over.

    It holds the images of one run at a time, so memory does not grow with the number of runs.
    """

    def __init__(self) -> None:
        self.key: object = None
        self.data: Images | None = None
        self.made: dict[str, Any] = {}

    def connect(self, data: Images, settings: Mapping[str, Any]) -> None:
        """Gives `data` the images of the run before if its settings are the same, else drops them.

        Reads nothing: images that the run before did not need are read on first use. Settings that
        matter only in training may differ. Then keeps `data` for the next run.

        Args:
            data: The data module of a run, with the units of its model.
            settings: The resolved `data` node that it was built from.
        """
        # A class of the user's may use any of its settings for its images
        omitted = TRAINING_ONLY if type(data) in (Images, Numbers) else ()
        units = vars(data).get("units")
        key = ({n: value for n, value in settings.items() if n not in omitted}, units)
        if key != self.key:
            self.key, self.made = key, {}
        elif self.data is not None and "splits" in vars(self.data):
            data.splits = self.data.splits
        self.data = data

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Returns `make()`, called once for all runs with these images; dropped with them.

        Args:
            name: What is made, with all that it depends on beside the data settings.
            make: Makes it; it should not depend on a run's model.
        """
        if name not in self.made:
            self.made[name] = make()
        return self.made[name]
