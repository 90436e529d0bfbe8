"""The search space: Hydra's sweep syntax as Optuna distributions, and values as overrides."""

from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import (
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
    Transformer,
)
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from vaelab.errors import UserError


@dataclass(frozen=True)
class Axis:
    """One searched setting with its Optuna distribution.

    Attributes:
        key: The setting as the command line overrides it, such as `model.beta` or `+model.beta`.
        given: The values to search, as they were typed.
        distribution: The same as an Optuna distribution.
        texts: The choices of a categorical distribution, as texts for overrides.
    """

    key: str
    given: str
    distribution: BaseDistribution
    texts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the setting, without a leading `+`."""
        return self.key.lstrip("+")

    def text(self, value: Any) -> str:
        """Returns a value of the distribution as text for an override."""
        if self.texts:
            return self.texts[int(self.distribution.to_internal_repr(value))]
        if getattr(self.distribution, "step", None):
            return f"{value:.12g}"  # no 0.30000000000000004
        return repr(value)


def parse_axis(override: Override) -> Axis:
    """Returns the axis of a sweep override, as `model.beta=tag(log,interval(0.1,16))`.

    `interval` gives real numbers, `int(interval(1,8))` and `range` whole numbers, `range` with a
    real step the numbers on that grid; as everywhere in Hydra, `range` excludes its end. Anything
    else gives choices.

    Raises:
        UserError: If Optuna has no such distribution.
    """
    key = override.get_key_element()
    given = str(override.input_line).partition("=")[2]
    sweep = override.value()
    try:
        if unknown := set(getattr(sweep, "tags", ())) - {"log"}:
            raise ValueError(f"tag {sorted(unknown)[0]} is not known, only log is")
        if isinstance(sweep, IntervalSweep):
            return Axis(key, given, interval_distribution(sweep))
        if isinstance(sweep, RangeSweep):
            return Axis(key, given, range_distribution(sweep))
        if getattr(sweep, "tags", ()):
            raise ValueError("choices have no log scale")
    except ValueError as error:
        raise UserError(f"{key}={given}: {error}") from error
    elements = getattr(sweep, "list", None) or list(override.sweep_iterator())
    choices = {Transformer.str(element): element for element in elements}
    known = [optuna_choice(element, text) for text, element in choices.items()]
    if not known:
        raise UserError(f"{key}={given}: there is nothing to choose from")
    return Axis(key, given, CategoricalDistribution(known), tuple(choices))


def interval_distribution(sweep: IntervalSweep) -> BaseDistribution:
    """Returns an interval's distribution: integers if both ends are; ValueError if invalid."""
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    assert low is not None
    assert high is not None
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)


def range_distribution(sweep: RangeSweep) -> BaseDistribution:
    """Returns the Optuna distribution of a range; raises ValueError if there is none."""
    values, log = sweep.range(), "log" in sweep.tags
    if not isinstance(values, range):
        if log:
            raise ValueError("a log scale is of interval, or of range with whole numbers")
        numbers = [float(f"{value:.12g}") for value in values]
        if not numbers:
            raise ValueError("is empty")
        return FloatDistribution(min(numbers), max(numbers), step=float(f"{abs(sweep.step):.12g}"))
    if not values:
        raise ValueError("is empty")
    return IntDistribution(min(values), max(values), log=log, step=abs(values.step))


def optuna_choice(element: Any, text: str) -> Any:
    """Returns a choice as Optuna can store it: itself if it is a plain value, else its text."""
    if isinstance(element, QuotedString):
        return element.text
    return element if isinstance(element, (bool, int, float, str, type(None))) else text
