"""The plan of an evaluation: which metrics to measure of a run, skipping those on record."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_method, instantiate
from omegaconf import DictConfig, OmegaConf

from vaelab.data import Images
from vaelab.data.description import change_warning
from vaelab.elbo import ELBO
from vaelab.errors import (
    NotApplicable,
    UserError,
    exception_chain,
    first_line,
    spelling_hint,
)
from vaelab.evaluation.record import MAIN_METRICS, Record
from vaelab.evaluation.subject import HasObstacle, Subject
from vaelab.randomness import stream_seed
from vaelab.runs import finished
from vaelab.runs.shared_data import SharedData

ESTIMATES = {
    "likelihood": "nll elbo distortion rate rate_per_latent nll_bits_per_dim",
    "ais": "nll_ais nll_minus_ais ais_acceptance",
    "pca": "pca_nll",
    "neighbours": "neighbours_nll",
    "reconstruction": "mse psnr ssim",
    "latents": "active_units mutual_information marginal_kl total_correlation",
    "samples": "frechet_classifier precision recall density coverage copied",
    "inception": "fid",
    "conditional": "agreement agreement_per_class nll_marginal nll_given_label label_information "
    "wrong_label_cost label_accuracy probe probe_chance",
    "disentanglement": "mig mig_chen dci_disentanglement dci_completeness dci_informativeness sap "
    "beta_vae_score factor_vae_score modularity explicitness irs",
}
"""Names of the estimates that each metric of this package gives, for hints to the user."""


def metric_hint(name: str, metrics: Iterable[str]) -> str:
    """Returns a hint for a name that is no metric: the metric that measures it, or a spelling.

    Args:
        name: What was given, perhaps the name of an estimate, or its beginning.
        metrics: The names of the metrics.
    """
    measured_by = {e: metric for metric in metrics for e in ESTIMATES.get(metric, "").split()}
    word = name.rpartition("/")[2].lower()
    begun = [estimate for estimate in measured_by if estimate.startswith(f"{word}_")]
    found = get_close_matches(word, [*metrics, *measured_by], n=1, cutoff=0.6) or begun
    if not found or found[0] not in measured_by:
        return spelling_hint(name, metrics)
    return f"{found[0]} is measured by {measured_by[found[0]]}"


@dataclass(frozen=True)
class Plan:
    """The metrics to measure, and how; the same plan evaluates any number of runs.

    Runs with the same data, one after the other, share images, classifier and its features. Their
    results are the same as if each had a plan of its own.

    Attributes:
        metrics: Configurations of the metrics of this package, by name, each with a `_target_`.
        what: Names of the metrics to measure; an unknown name raises UserError.
        seed: Seed of all that is drawn.
        rerun: Whether to measure metrics again that are on record.
        command: The command line, stored with the results.
        say: Prints a line to the user.
        shared: The data of the run that was measured last.
    """

    metrics: Mapping[str, Any]
    what: Sequence[str]
    seed: int
    rerun: bool
    command: str
    say: Callable[[str], None]
    shared: SharedData = field(default_factory=SharedData)

    def __post_init__(self) -> None:
        """Raises UserError for an unknown name in `what`, or settings its metric cannot take."""
        for name in self.what:
            if name not in self.metrics:
                raise UserError(
                    f"{name}: there is no such metric; {metric_hint(name, self.metrics)}"
                )
            self.check_metric(name)

    def check_metric(self, name: str) -> None:
        """Raises UserError unless the metric can be built, and be called with a subject alone."""
        try:
            metric = instantiate(self.metrics[name], _convert_="all")
            if not callable(metric):
                raise TypeError(f"a {type(metric).__name__} is no metric")
            signature(metric).bind(None)
        except (InstantiationException, TypeError, ValueError) as error:
            reason = first_line([*exception_chain(error)][-1])
            raise UserError(f"metrics.{name}: {reason}") from error

    def check_applicable(self, model: ELBO, data: Images) -> None:
        """Raises UserError if every metric is already known to be not applicable to the model."""
        targets: dict[str, object] = {
            name: get_method(self.metrics[name]["_target_"]) for name in self.what
        }
        obstacles = {
            name: target.obstacle(model, data)
            for name, target in targets.items()
            if isinstance(target, HasObstacle)
        }
        self.check_not_all_absent({name: reason for name, reason in obstacles.items() if reason})

    def check_not_all_absent(self, absent: Mapping[str, str]) -> None:
        """Raises UserError with all reasons if no metric of the plan is applicable.

        Args:
            absent: Names of the metrics that are not applicable, with the reason.
        """
        if absent and len(absent) == len(self.what):
            raise UserError("; ".join(f"{name}: {reason}" for name, reason in absent.items()))

    def main_estimates(self) -> list[str]:
        """Returns the names of the estimates that a run has in one line, see `MAIN_METRICS`.

        If none of those is measured, it is the first estimate of each metric.
        """
        measured = [ESTIMATES.get(name, name).split() for name in self.what]
        main = [name for name in MAIN_METRICS if any(name in names for names in measured)]
        return main or [names[0] for names in measured]

    def evaluate_run(
        self,
        folder: Path,
        device: torch.device,
        cache: Path,
        *,
        trust: bool = False,
        cfg: DictConfig | None = None,
    ) -> Record:
        """Measures a run's best checkpoint, writes each result; skips those on record; seeds torch.

        With `rerun` it skips none. Sets the seed of torch's global random state. Writes
        `evaluation.json` and TensorBoard events into the run folder, and says which metrics are not
        applicable.

        Args:
            folder: The run folder.
            device: The device to measure on.
            cache: Folder of the classifiers of data sets, and of the data of a run from elsewhere.
            trust: See `vaelab.runs.finished.load_run`.
            cfg: See `vaelab.runs.finished.load_run`.

        Raises:
            UserError: If the run cannot be loaded, if no metric is applicable, or if a metric
                failed; the others are measured first.
        """
        model, data = finished.load_run(
            folder, trust=trust, data_folder=cache, cfg=cfg, shared=self.shared
        )
        if how_far := finished.unfinished_progress(folder):
            self.say(f"{folder}: not finished, {how_far}")
        data.device = device
        subject = Subject(model.to(device), data, cache, self.seed, shared=self.shared)
        record = Record(folder, getattr(model, "step", 0))
        absent, failed = {}, []
        every = {n: metric_settings(self.metrics[n]) | {"seed": self.seed} for n in self.what}
        left = {n: each for n, each in every.items() if self.rerun or not record.has(n, each)}
        if left and (changed := change_warning(data, model.data_then)):
            self.say(f"{folder}: {changed}")
        for name, settings in left.items():
            torch.manual_seed(stream_seed(f"evaluate {name}", self.seed))
            try:
                results = instantiate(self.metrics[name], _convert_="all")(subject)
            except NotApplicable as error:
                absent[name] = str(error)
                continue
            except UserError as error:
                failed.append(f"{name}: {error}")
                continue
            record.add(name, settings, results, self.command)
        self.check_not_all_absent(absent)
        for name, reason in absent.items():
            self.say(f"{folder}: {name} left out: {reason}")
        for reason, names in record.reasons().items():
            self.say(f"{folder}: {', '.join(names)} n/a: {reason}")
        if failed:
            raise UserError("; ".join(failed))
        return record


def metric_settings(metric: Any) -> dict[str, Any]:
    """Returns a metric's settings as plain values, without `_target_` and other `_` names."""
    resolved: Any = (
        OmegaConf.to_container(metric, resolve=True) if OmegaConf.is_config(metric) else metric
    )
    return {name: value for name, value in resolved.items() if not name.startswith("_")}
