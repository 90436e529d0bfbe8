"""`scheduler`, `early_stopping`, `ema` and clipping of `python train.py`, and other callbacks."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from support import programs
from support.logged_curves import assert_same_curves, read_rows

import vaelab
from vaelab.commands import evaluate, export, train
from vaelab.runs import resume
from vaelab.runs.folder import read_plain_config

ROOT = Path(__file__).parents[2]
EARLIER = Path(__file__).parent / "earlier" / "before_floors" / "run"
TINY = [
    *("model.encoder.hidden=[8]", "model.decoder.hidden=[8]", "model.latent_dim=2"),
    *("data.batch_size=500", "trainer.accelerator=cpu", "callbacks.board=null"),
    "trainer.log_every_n_steps=1",
]  # 8 steps an epoch


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """A data folder that all these runs share."""
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def run_train(tmp_path, data_dir, monkeypatch):
    """Returns a function that trains in this process into `tmp_path/NAME`, which it returns."""
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)

    def run(name, *overrides):
        folder = tmp_path / name
        given = [f"hydra.run.dir={folder}", f"paths.data={data_dir}", *TINY, *overrides]
        monkeypatch.setattr(sys, "argv", ["train.py", *given])
        train.main()
        return folder

    return run


def load(folder, name="last"):
    """Reads a checkpoint of a run folder."""
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)


def assert_same_weights(one, other):
    """Asserts that two state dicts are equal to the bit."""
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


GROUPS = {
    "cosine": ["scheduler=cosine", "model.scheduler.warmup=0.2", "ema=default", "ema.decay=0.9"],
    "plateau": [
        *("scheduler=plateau", "model.scheduler.patience=1", "model.scheduler.min_delta=1000"),
        *("ema=default", "early_stopping=default", "early_stopping.patience=3"),
        *("early_stopping.min_delta=1000", "trainer.gradient_clip_val=0.5"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize(
    ("number", "stop"),
    [
        (signal.SIGTERM, {"step": 11}),
        (signal.SIGTERM, {"step": 16, "validating": "true"}),
        (signal.SIGKILL, {"step": 19}),
    ],
)
def test_interrupted_run_ends_in_the_same_bits(tmp_path, data_dir, run_train, groups, stop, number):
    words = [*GROUPS[groups], "logger=csv", "trainer.max_epochs=5"]
    whole = run_train("whole", *words)
    set_stop = {"_target_": "support.faults.Stop", "number": int(number)} | stop
    words += [f"+callbacks.stop.{name}={value}" for name, value in set_stop.items()]
    given = [f"hydra.run.dir={tmp_path}/run", f"paths.data={data_dir}", *TINY, *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests")}
    command = [sys.executable, "train.py", *given]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 500}
    stopped = programs.run(command, env=environment, **options)
    assert stopped.returncode == (143 if number == signal.SIGTERM else -number), stopped.stderr
    resumed = programs.run(command, env=environment | {"STOP": "no"}, **options)
    assert resumed.returncode == 0, resumed.stderr
    assert "warning" not in resumed.stderr
    for name in ("last", "best"):
        one, other = load(whole, name), load(tmp_path / "run", name)
        assert one["global_step"] == other["global_step"]
        assert_same_weights(one["state_dict"], other["state_dict"])
        assert_same_weights(one["ema"]["weights"], other["ema"]["weights"])
    assert_same_curves(tmp_path / "run", whole)
    results = [json.loads((f / "results.json").read_text()) for f in (whole, tmp_path / "run")]
    assert results[0].get("stopped") == results[1].get("stopped")
    assert (results[0].get("stopped") == "epoch 4 of 5") == (groups == "plateau")


DRAWN = ["data.balance=true", "data.flip=true", "data.shift=2", "logger=csv"]
NOTE = "+callbacks.note._target_=support.process_states.ProcessState"


@pytest.fixture
def start(data_dir):
    """Returns a function that trains in new processes, and returns what ended and was printed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests"), "OMP_NUM_THREADS": "1"}
    environment.pop("HYDRA_FULL_ERROR", None)

    def start_run(folder, *words, **variables):
        given = [f"hydra.run.dir={folder}", f"paths.data={data_dir}", *TINY, *words]
        command = [sys.executable, "train.py", *given]
        options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 580}
        return programs.run(command, env=environment | variables, **options)

    return start_run


def assert_same_in_both_processes(folder):
    """Asserts that both processes of a run ended with the same state; returns that."""
    one, other = (torch.load(folder / f"state-{rank}.pt", weights_only=True) for rank in (0, 1))
    for name in ("weights", "spare"):
        assert_same_weights(one[name], other[name])
    assert {n: v for n, v in one.items() if n not in ("weights", "spare")} == {
        n: v for n, v in other.items() if n not in ("weights", "spare")
    }
    return one


@pytest.mark.slow
@pytest.mark.parametrize("groups", GROUPS)
def test_two_processes_agree_match_one_and_resume_to_the_same_bits(tmp_path, start, groups):
    words = [*GROUPS[groups], *DRAWN, "trainer.max_epochs=5", "trainer.gradient_clip_val=0.5"]
    alone, whole, cut = (tmp_path / name for name in ("alone", "whole", "cut"))
    assert start(alone, *words).returncode == 0
    words += ["trainer=ddp_cpu", "trainer.log_every_n_steps=1", NOTE]
    done = start(whole, *words)
    assert done.returncode == 0, done.stderr
    both = assert_same_in_both_processes(whole)
    assert both["updates"] == 8 * both["epochs"]
    assert both["epochs"] == {"cosine": 5, "plateau": 4}[groups]
    assert len({tuple(seen["rates"]) for seen in both["validations"]}) > 2

    one, two = load(alone), load(whole)
    for name, weight in one["state_dict"].items():
        torch.testing.assert_close(two["state_dict"][name], weight, rtol=1e-3, atol=1e-4)
        trained = one["ema"]["weights"][name]
        torch.testing.assert_close(two["ema"]["weights"][name], trained, rtol=1e-3, atol=1e-4)
    results = [json.loads((f / "results.json").read_text()) for f in (alone, whole)]
    assert [r["devices"] for r in results] == [1, 2]
    assert results[0]["steps"] == results[1]["steps"]
    assert results[0].get("stopped") == results[1].get("stopped")
    assert (results[1].get("stopped") == "epoch 4 of 5") == (groups == "plateau")
    rates = [[r["train/learning_rate"] for r in read_rows(f)] for f in (alone, whole)]
    assert rates[0] == rates[1]

    stop = {"_target_": "support.faults.Stop", "number": 15, "step": 19, "rank": 1}
    words += [f"+callbacks.stop.{name}={value}" for name, value in stop.items()]
    stopped = start(cut, *words)
    assert stopped.returncode == 143, stopped.stderr
    done = start(cut, *words, STOP="no")
    assert done.returncode == 0, done.stderr
    assert "going on from step 20" in done.stdout
    resumed = assert_same_in_both_processes(cut)
    assert_same_weights(resumed["weights"], both["weights"])
    assert_same_weights(resumed["spare"], both["spare"])
    assert resumed["validations"] == both["validations"][2:]
    assert_same_curves(cut, whole)


@pytest.mark.slow
def test_compiled_training_matches_eager_and_resumes_to_the_same_bits(tmp_path, start):
    words = [*GROUPS["cosine"], *DRAWN, "trainer.max_epochs=3", "trainer.gradient_clip_val=0.5"]
    words += ["early_stopping=default"]
    eager, whole, cut = (tmp_path / name for name in ("eager", "whole", "cut"))
    assert start(eager, *words).returncode == 0
    words += ["compile=true"]
    done = start(whole, *words)
    assert done.returncode == 0, done.stderr
    assert "compile=true: not done" not in done.stdout
    for name in ("state_dict", "ema"):
        one, two = (load(folder)[name] for folder in (eager, whole))
        one, two = (found.get("weights", found) for found in (one, two))
        for key in one:
            torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=1e-4)
    stop = {"_target_": "support.faults.Stop", "number": 15, "step": 11}
    words += [f"+callbacks.stop.{name}={value}" for name, value in stop.items()]
    stopped = start(cut, *words)
    assert stopped.returncode == 143, stopped.stderr
    done = start(cut, *words, STOP="no")
    assert done.returncode == 0, done.stderr
    one, two = load(cut), load(whole)
    assert_same_weights(one["state_dict"], two["state_dict"])
    assert_same_weights(one["ema"]["weights"], two["ema"]["weights"])
    assert_same_curves(cut, whole)


@pytest.mark.slow
def test_rate_of_each_step_is_in_the_curves(run_train):
    folder = run_train("run", "scheduler=cosine", "logger=csv", "trainer.max_epochs=1")
    rates = [
        float(r["train/learning_rate"]) for r in read_rows(folder) if r.get("train/learning_rate")
    ]
    shares = [0.5 + 0.5 * torch.cos(torch.tensor(n * torch.pi / 8)).item() for n in range(8)]
    assert rates == pytest.approx([1e-3 * share for share in shares])


@pytest.mark.slow
def test_averages_are_what_all_commands_use(run_train, tmp_path, monkeypatch, capsys):
    folder = run_train(
        "run", "ema=default", "scheduler=step", "trainer.max_epochs=2", "logger=none"
    )
    best = load(folder, "best")
    averaged, trained = best["state_dict"], best["ema"]["weights"]
    assert not any(torch.equal(averaged[name], trained[name]) for name in averaged)
    assert_same_weights(dict(vaelab.load(folder).state_dict()), dict(best["state_dict"]))
    monkeypatch.setattr(sys, "argv", ["evaluate.py", f"run={folder}", "num_samples=2"])
    evaluate.main()
    results, measured = (
        json.loads((folder / name).read_text()) for name in ("results.json", "evaluation.json")
    )
    assert measured["elbo"]["value"] == pytest.approx(results["test/elbo"], abs=0.5)
    given = [f"run={folder}", f"to={tmp_path}/exported", "what=safetensors"]
    monkeypatch.setattr(sys, "argv", ["export.py", *given])
    export.main()
    exported = vaelab.load(tmp_path / "exported")
    assert_same_weights(dict(exported.state_dict()), dict(best["state_dict"]))


@pytest.mark.slow
def test_run_with_averages_that_goes_on_without_says_so(run_train, capsys):
    words = ["logger=none", "trainer.max_epochs=1"]
    run_train("run", *words, "ema=default")
    run_train("run", *words[:1], "ema=none", "trainer.max_epochs=2", "ckpt=last")
    assert "with ema=none training goes on from the averages" in capsys.readouterr().err


@pytest.mark.slow
def test_run_that_stopped_early_says_so_and_how_to_go_on(run_train, capsys):
    words = ["early_stopping=default", "early_stopping.patience=1", "model.optimizer.lr=0"]
    words += ["logger=none", "trainer.max_epochs=30"]  # its best checkpoint is of the first epoch
    folder = run_train("run", *words)
    said = capsys.readouterr().out
    assert "stopped at epoch 2 of 30 by EarlyStopping" in said
    assert "early_stopping.patience=2" in said.splitlines()[-1]
    (folder / "results.json").unlink()  # as if it had been killed before its end
    run_train("run", *words)
    assert "stopped at epoch 2 of 30 by EarlyStopping" in capsys.readouterr().out
    assert json.loads((folder / "results.json").read_text())["steps"] == 16
    run_train("run", *words, "early_stopping.patience=2", "ckpt=last")
    assert json.loads((folder / "results.json").read_text())["stopped"] == "epoch 3 of 30"


LIGHTNINGS = "lightning.pytorch.callbacks"
SWA = f"+callbacks.swa={{_target_:{LIGHTNINGS}.StochasticWeightAveraging,swa_lrs:0.1}}"
CALLBACKS = {
    "LearningRateMonitor": "logging_interval:step",
    "ModelSummary": "max_depth:2",
    "Timer": "duration:'00:01:00:00'",
    "EMAWeightAveraging": "decay:0.9",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CALLBACKS)
def test_callbacks_of_lightning_work(run_train, name):
    node = f"+callbacks.mine={{_target_:{LIGHTNINGS}.{name},{CALLBACKS[name]}}}"
    words = [node, "scheduler=cosine", "logger=csv", "trainer.max_epochs=1"]
    folder = run_train("run", *words)
    assert vaelab.load(folder).step == 8
    if name == "LearningRateMonitor":
        assert any("lr-Adam" in row for row in read_rows(folder))


@pytest.mark.slow
def test_any_scheduler_of_torch_can_be_named(run_train):
    node = "{_target_:torch.optim.lr_scheduler.ExponentialLR,_partial_:true,gamma:0.5}"
    words = [f"model.scheduler={node}", "logger=csv", "trainer.max_epochs=2"]
    folder = run_train("run", *words)
    rates = [
        float(r["train/learning_rate"]) for r in read_rows(folder) if r.get("train/learning_rate")
    ]
    assert rates == pytest.approx([1e-3] * 8 + [5e-4] * 8)
    assert vaelab.load(folder).step == 16  # without trust


REFUSED = {  # overrides: part of the error message
    SWA: "ema=default has averaged weights in both",
    "scheduler=cosine trainer.max_epochs=-1": "scheduler=cosine needs a trainer.max_epochs",
    "scheduler=warmup trainer.max_epochs=-1": "scheduler=warmup needs a trainer.max_epochs",
    "scheduler=cosine model.scheduler.final=2": "model.scheduler.final=2: should be less",
    "scheduler=cosine model.scheduler.warmup=1.5": "model.scheduler.warmup=1.5: should be",
    "scheduler=step model.scheduler.every=0": "model.scheduler.every=0: should be greater",
    "scheduler=plateau model.scheduler.patience=0": "model.scheduler.patience=0: should be",
    "scheduler=step +model.scheduler.gamma=1": "Step has no such setting",
    "model.scheduler={_target_:torch.optim.lr_scheduler.ExponentialLR,gamma:1}": "model.scheduler",
    "scheduler=linear": "there is no such scheduler; possible are cosine, none, plateau",
    "scheduler=step model.scheduler._target_=torch.optim.Adam": "Adam has no such setting",
    "scheduler=step model.scheduler._target_=builtins.dict": "model.scheduler: ",
    "early_stopping=default early_stopping.patience=0": "early_stopping.patience=0: should be",
    "early_stopping=default +early_stopping.monitor=val/los": "did you mean val/loss",
    "ema=default ema.decay=1": "ema.decay=1: should be less than 1",
    "ema=true": "there is no such ema; possible are default, none",
    "logger.save_dir=x": "logger.save_dir: there is no such setting",
    "logger=[csv,tensorbord]": "tensorbord: there is no such logger; did you mean tensorboard?",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_groups_refuse_invalid_settings_in_one_line(run_train, capsys, tmp_path, overrides):
    with pytest.raises(SystemExit) as end:
        run_train("run", "logger=none", *overrides.split())
    said = capsys.readouterr().err.strip().splitlines()
    assert end.value.code == 2
    assert REFUSED[overrides] in said[-1]
    assert not (tmp_path / "run").exists()


def test_run_of_before_these_groups_is_the_same_run(compose):
    overrides = (
        (EARLIER / ".hydra" / "overrides.yaml").read_text().replace("- ", "").split("\n")[:-1]
    )
    now = resume.identity_settings(resume.plain_settings(compose(*overrides)))
    before = resume.identity_settings(read_plain_config(EARLIER))
    new = {name for name in now if name not in before}
    assert not {n for n in new if "ema" in n or "early_stopping" in n or "scheduler" in n}
    other = resume.identity_settings(resume.plain_settings(compose(*overrides, "ema=default")))
    assert {"ema.decay", "callbacks.ema"} <= other.keys()
