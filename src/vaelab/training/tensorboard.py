"""The columns of TensorBoard's hparams tab."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams.api_pb2 import Experiment, HParamInfo, MetricInfo, MetricName
from tensorboard.plugins.hparams.metadata import (
    EXPERIMENT_TAG,
    PLUGIN_DATA_VERSION,
    PLUGIN_NAME,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


@rank_zero_only
def name_columns(
    logger: TensorBoardLogger,
    settings: Mapping[str, Any],
    first: Collection[str],
    metrics: Iterable[str],
) -> None:
    """Names the columns of TensorBoard's hparams tab, before Lightning does.

    The tab shows five settings at the start: those that are said to differ, and among these in the
    order of the alphabet. It takes the names from one of the runs, and the first time they are
    written there.

    Args:
        logger: Of the run.
        settings: The settings of the run.
        first: Names to be shown at the start, whether the run has such a setting or not.
        metrics: Names of the scalars beside them.
    """
    kinds = {name: kind_of(value) for name, value in settings.items()}
    columns = [
        HParamInfo(name=name, type=kinds.get(name, "DATA_TYPE_FLOAT64"), differs=name in first)
        for name in dict.fromkeys([*settings, *first])
    ]
    shown = [MetricInfo(name=MetricName(tag=name)) for name in metrics]
    experiment = Experiment(hparam_infos=columns, metric_infos=shown)
    content = HParamsPluginData(experiment=experiment, version=PLUGIN_DATA_VERSION)
    plugin = SummaryMetadata.PluginData(
        plugin_name=PLUGIN_NAME, content=content.SerializeToString()
    )
    value = Summary.Value(tag=EXPERIMENT_TAG, metadata=SummaryMetadata(plugin_data=plugin))
    logger.experiment.file_writer.add_summary(Summary(value=[value]))


def kind_of(value: Any) -> str:
    """The type of a setting, as the hparams tab names it."""
    if isinstance(value, str):
        return "DATA_TYPE_STRING"
    return "DATA_TYPE_BOOL" if isinstance(value, bool) else "DATA_TYPE_FLOAT64"
