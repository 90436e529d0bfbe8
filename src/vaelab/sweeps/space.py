"""What a search varies: Hydra's sweep syntax as Optuna's distributions, and values as overrides."""

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
    """One setting of the search.

    Attributes:
        key: As the command line overrides it, such as `model.beta` or `+model.beta`.
        given: What it is searched in, as it was given.
        distribution: The same for Optuna.
        texts: Of the choices of a categorical one, as overrides.
    """

    key: str
    given: str
    distribution: BaseDistribution
    texts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.key.lstrip("+")

    def text(self, value: Any) -> str:
        """A value of the distribution as the command line takes it."""
        if self.texts:
            return self.texts[int(self.distribution.to_internal_repr(value))]
        if getattr(self.distribution, "step", None):
            return f"{value:.12g}"  # no 0.30000000000000004
        return repr(value)


def axis(override: Override) -> Axis:
    """The axis of an override such as `model.beta=tag(log,interval(0.1,16))`.

    `interval` draws real numbers, `int(interval(1,8))` and `range` whole ones, `range` with a
    step those on the grid, without its end as everywhere in Hydra; choices are choices.

    Raises:
        UserError: If Optuna has nothing of the kind.
    """
    key = override.get_key_element()
    given = str(override.input_line).partition("=")[2]
    sweep = override.value()
    try:
        if unknown := set(getattr(sweep, "tags", ())) - {"log"}:
            raise ValueError(f"tag {sorted(unknown)[0]} is not known, only log is")
        if isinstance(sweep, IntervalSweep):
            return Axis(key, given, interval(sweep))
        if isinstance(sweep, RangeSweep):
            return Axis(key, given, grid(sweep))
        if getattr(sweep, "tags", ()):
            raise ValueError("choices have no log scale")
    except ValueError as error:
        raise UserError(f"{key}={given}: {error}") from error
    elements = getattr(sweep, "list", None) or list(override.sweep_iterator())
    choices = {Transformer.str(element): element for element in elements}
    known = [plain(element, text) for text, element in choices.items()]
    if not known:
        raise UserError(f"{key}={given}: there is nothing to choose from")
    return Axis(key, given, CategoricalDistribution(known), tuple(choices))


def interval(sweep: IntervalSweep) -> BaseDistribution:
    low, high, log = sweep.start, sweep.end, "log" in sweep.tags
    assert low is not None
    assert high is not None
    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(float(low), float(high), log=log)


def grid(sweep: RangeSweep) -> BaseDistribution:
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


def plain(element: Any, text: str) -> Any:
    """A choice as Optuna can keep it: a number, a word, or else what the command line takes."""
    if isinstance(element, QuotedString):
        return element.text
    return element if isinstance(element, (bool, int, float, str, type(None))) else text
