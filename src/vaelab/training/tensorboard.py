"""Logger to TensorBoard whose files are read in their order, and the columns of its hparams tab."""

import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import loggers
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams.api_pb2 import Experiment, HParamInfo, MetricInfo, MetricName
from tensorboard.plugins.hparams.metadata import (
    EXPERIMENT_TAG,
    PLUGIN_DATA_VERSION,
    PLUGIN_NAME,
)
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData


class TensorBoardLogger(loggers.TensorBoardLogger):
    """Lightning's logger to TensorBoard, but each start of a run writes a file read after the last.

    TensorBoard reads the files of a run in the order of their names: by the second of creation,
    then by the text of process and count, of which "10" is before "9".
    """

    is_begun = False  # whether a file was created

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of the file; its first use creates it, up to a second after it is called."""
        if not self.is_begun:
            await_second_after(Path(self.log_dir))
            self.is_begun = True
        return super().experiment


def await_second_after(folder: Path) -> None:
    """Waits until the second in which the newest event file of a folder was created has passed."""
    seconds = [path.name.split(".")[3] for path in folder.glob("events.out.tfevents.*")]
    newest = max((int(second) for second in seconds if second.isdecimal()), default=0)
    while 0 <= time.time() - newest < 1:
        time.sleep(0.01)


@rank_zero_only
def write_hparams_columns(
    logger: loggers.TensorBoardLogger,
    settings: Mapping[str, Any],
    first: Collection[str],
    metrics: Iterable[str],
) -> None:
    """Writes the hparams tab's columns, not values; only on rank 0, before `log_hyperparams`.

    The tab takes the columns that were written first to the event file. It opens on five settings:
    those marked as differing, in alphabetical order.

    Args:
        logger: The TensorBoard logger of the run.
        settings: The settings of the run, by name.
        first: Names of settings to mark as differing, even if the run has no such setting.
        metrics: Names of the scalars shown beside the settings.
    """
    kinds = {name: hparam_type(value) for name, value in settings.items()}
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


def hparam_type(value: Any) -> str:
    """Returns TensorBoard's name for the type of a setting: text, boolean, or else number."""
    if isinstance(value, str):
        return "DATA_TYPE_STRING"
    return "DATA_TYPE_BOOL" if isinstance(value, bool) else "DATA_TYPE_FLOAT64"
