"""`CSVLogger`: rows kept, rewound and completed after a kill, new columns, and no half files."""

import os

import pytest

from vaelab.training.csv_logger import CSVLogger


def build_logger(folder):
    """Builds a logger whose file is `folder/metrics.csv`."""
    return CSVLogger(folder, name="", version="")


def log_steps(logger, first, end, name="a"):
    """Logs the values 0.5 + step of steps from `first` to before `end`, and saves them."""
    for step in range(first, end):
        logger.log_metrics({name: 0.5 + step}, step)
    logger.save()


def test_rows_of_an_earlier_process_are_kept_up_to_the_step_of_the_checkpoint(tmp_path):
    log_steps(build_logger(tmp_path), 0, 6)
    logger = build_logger(tmp_path)
    logger.rewind(4)
    log_steps(logger, 4, 8)
    rows = (tmp_path / "metrics.csv").read_text().split()
    assert rows == ["a,step", *(f"{0.5 + step},{step}" for step in range(8))]


def test_rewind_to_the_start_leaves_no_file(tmp_path):
    logger = build_logger(tmp_path)
    log_steps(logger, 0, 3)
    logger.rewind(0)
    assert not (tmp_path / "metrics.csv").exists()
    log_steps(logger, 0, 1, name="b")
    assert (tmp_path / "metrics.csv").read_text().split() == ["b,step", "0.5,0"]


@pytest.mark.parametrize("cut", range(1, 8))
def test_row_cut_off_by_a_kill_is_dropped(tmp_path, cut):
    log_steps(build_logger(tmp_path), 10, 14)
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-cut])
    logger = build_logger(tmp_path)
    logger.rewind(13)
    log_steps(logger, 13, 15)
    steps = [row.split(",")[1] for row in path.read_text().split()]
    assert steps == ["step", "10", "11", "12", "13", "14"]


def test_new_column_keeps_all_rows_and_the_old_file_if_writing_fails(tmp_path, monkeypatch):
    logger = build_logger(tmp_path)
    log_steps(logger, 0, 3)
    before = (tmp_path / "metrics.csv").read_text()

    def fail(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", fail)
        with pytest.raises(KeyboardInterrupt):
            log_steps(logger, 3, 4, name="b")
    assert (tmp_path / "metrics.csv").read_text() == before
    again = build_logger(tmp_path)
    log_steps(again, 3, 5, name="b")
    rows = (tmp_path / "metrics.csv").read_text().split()
    assert rows == ["a,b,step", "0.5,,0", "1.5,,1", "2.5,,2", ",3.5,3", ",4.5,4"]
