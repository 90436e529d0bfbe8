"""`from=RUN` of `python train.py`: a new run with the settings of an earlier one.

Also tests experiment files of a folder of one's own, by `--config-dir`.
"""

import json
import re
import shutil
import sys
from functools import partial, reduce
from operator import getitem
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from vaelab.commands import arguments, completion, train
from vaelab.commands.config_folders import CONF, compose_config
from vaelab.commands.earlier_settings import expand_from, settings_today
from vaelab.commands.resumption import warn_of_other_settings
from vaelab.errors import UserError
from vaelab.runs import naming, resume
from vaelab.runs.folder import COMPOSED, flatten, write_config

EARLIER = Path(__file__).parent / "earlier" / "before_floors" / "run"
TINY = [
    *("model=beta_vae", "model.encoder.hidden=[8]", "model.decoder.hidden=[8]"),
    *("model.latent_dim=2", "data.batch_size=500", "trainer.max_epochs=1"),
    *("trainer.accelerator=cpu", "callbacks.board=null", "logger=none"),
]


def settings(*words: str, folders=(CONF,)) -> dict:
    """Returns a composed configuration as plain values, unresolved, without its `hydra` part."""
    plain = OmegaConf.to_container(compose_config(list(folders), "train", words), resolve=False)
    del plain["hydra"]
    return plain


@pytest.fixture
def make_run(tmp_path):
    """Returns a function (*overrides) -> the folder of a run that was started with them."""

    def make(*words: str, folders=(CONF,)) -> Path:
        folder = tmp_path / "run"
        cfg = OmegaConf.create(settings(*words, folders=folders))
        write_config(folder, cfg, [w for w in words if not w.startswith("hydra.")])
        return folder

    return make


def edit_settings(folder: Path, **changes) -> None:
    """Changes settings in a run's configuration file, by dotted names with `__` for a dot."""
    cfg = OmegaConf.load(folder / COMPOSED)
    for name, value in changes.items():
        OmegaConf.update(cfg, name.replace("__", "."), value, force_add=True)
    (folder / COMPOSED).write_text(OmegaConf.to_yaml(cfg))


def expand(*words: str) -> list[str]:
    """Returns the words after `from=` is replaced, with vaelab's configurations."""
    return expand_from([arguments.quote_argument(word, []) for word in words], [CONF])


def changed(folder: Path, words: list[str]) -> dict:
    """Returns the settings of a command line that differ from those of a run, by dotted names."""
    before, now = flatten(OmegaConf.to_container(OmegaConf.load(folder / COMPOSED))), {}
    now = flatten(settings(*words))
    return {n: now.get(n) for n in before.keys() | now.keys() if before.get(n) != now.get(n)}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["model=beta_vae", "model.beta=3", "network=conv", "+trainer.limit_train_batches=2"],
        ["data=cifar10", "prior=vamp", "model.prior.components=7", "logger=[csv,tensorboard]"],
        ["annealing=cyclical", "ema=default", "early_stopping=default", "scheduler=cosine"],
        ["experiment=beta_by_latents", "model.latent_dim=5"],
        ["experiment=disentanglement", "seed=3"],
        ["data=arrays", "data.source.path='it''s mine.npz'", "trainer=gpu", "~callbacks.speed"],
    ],
)
def test_from_has_the_settings_of_the_run_but_those_given(make_run, words):
    words = [word.replace("''", "\\'") for word in words]
    folder = make_run(*words)
    assert changed(folder, expand(f"from={folder}")) == {}
    path = folder / COMPOSED
    for named in (path, path.parent):
        assert changed(folder, expand("seed=9", f"from={named}", "rerun=true")) == {
            "seed": 9,
            "rerun": True,
        }


def test_from_keeps_settings_whose_default_has_changed(make_run):
    folder = make_run("model=beta_vae", "network=conv")
    texts = {"model__note": "it's ${seed} of \\", "data__source__x": [1, None, "1", {"a": True}]}
    edit_settings(folder, model__free_bits=0.25, trainer__gradient_clip_val=1e-05, **texts)
    edit_settings(folder, compile=True, ema={"_target_": "vaelab.training.callbacks.EMA"})
    assert changed(folder, expand(f"from={folder}")) == {}


def test_from_drops_settings_of_another_target(make_run):
    folder = make_run("network=mlp")
    (folder / COMPOSED.with_name("overrides.yaml")).write_text("- network=conv\n")
    assert changed(folder, expand(f"from={folder}")) == {}


def check_command(folder: Path, *words: str) -> None:
    """Checks a command line as a new start of the run in a folder: UserError if it is another."""
    today = partial(settings_today, folder)
    resume.check_same_run(folder, folder, OmegaConf.create(settings(*words)), today)


NEW = {  # overrides of a run: settings that were new after it was made
    (): ["data.balance", "data.flip", "data.shift", "data.window", "callbacks.speed", "data.seed"],
    ("network=conv", "scheduler=cosine"): ["model.encoder.channels", "model.scheduler.warmup"],
    ("data=vectors", "data.source.path=a.npy"): ["data.standardize", "data.source.leave_out"],
    ("ema=default",): ["ema.decay", "precision", "evaluate", "trainer.log_every_n_steps"],
    ("trainer.log_every_n_steps=7",): ["trainer.log_every_n_steps"],
}


def delete_settings(folder: Path, *names: str) -> None:
    """Deletes settings from a run's configuration file, by dotted names."""
    cfg = OmegaConf.to_container(OmegaConf.load(folder / COMPOSED))
    for name in names:
        *parents, last = name.split(".")
        del reduce(getitem, parents, cfg)[last]
    (folder / COMPOSED).write_text(OmegaConf.to_yaml(cfg))


@pytest.mark.parametrize("words", NEW)
def test_settings_that_are_new_since_a_run_make_it_no_other_run(make_run, words):
    folder = make_run(*words)
    delete_settings(folder, *NEW[words])
    check_command(folder, *words)
    check_command(folder, *words, *(["data.balance=false"] if not words else []))
    with pytest.raises(UserError, match="holds a run with seed=0, not 4; ckpt=last goes on"):
        check_command(folder, *words, "seed=4")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.balance=true", "data.balance=False, not True"),
        ("data.shift=2", "data.shift=0, not 2"),
        ("ema=default", "callbacks.ema=nothing, not"),
        ("scheduler=step", "model.scheduler._partial_=nothing, not True"),
        ("+trainer.limit_val_batches=2", "trainer.limit_val_batches=nothing, not 2"),
    ],
)
def test_new_setting_with_another_value_is_another_run(make_run, word, message):
    folder = make_run()
    delete_settings(folder, *NEW[()], "ema", "callbacks.ema", "model.scheduler")
    check_command(folder)
    with pytest.raises(UserError, match=f"holds a run with {message}"):
        check_command(folder, word)


def test_new_setting_that_a_run_had_null_or_no_overrides_is_compared(make_run):
    folder = make_run("callbacks.speed=null")
    with pytest.raises(UserError, match=r"holds a run with callbacks.speed._target_=nothing"):
        check_command(folder)
    (folder / COMPOSED.with_name("overrides.yaml")).unlink()
    delete_settings(folder, "data.flip")
    check_command(folder, "callbacks.speed=null")


def test_new_settings_do_not_divide_the_images_in_another_way(make_run, recwarn):
    folder = make_run("data=arrays", "data.source.path=a.npz")
    delete_settings(folder, "data.source.range", "data.source.layout", "data.test_size")
    words = ["data=arrays", "data.source.path=a.npz"]
    checkpoint = folder / "checkpoints" / "last.ckpt"
    warn_of_other_settings(OmegaConf.create(settings(*words)), checkpoint)
    assert not recwarn
    warn_of_other_settings(OmegaConf.create(settings(*words, "data.test_size=3")), checkpoint)
    assert "data.test_size=3 divides the images in another way" in str(recwarn[0].message)


def test_command_of_a_run_of_an_earlier_version_finds_it_finished(tmp_path, monkeypatch, capsys):
    folder = shutil.copytree(EARLIER, tmp_path / "run")
    overrides = OmegaConf.load(folder / COMPOSED.with_name("overrides.yaml"))
    run_train(monkeypatch, *overrides, f"hydra.run.dir={folder}")
    assert "is finished, with val/elbo" in capsys.readouterr().out


def test_from_takes_over_no_start(make_run):
    folder = make_run("seed=2", "ckpt=last", "rerun=true")
    overrides = folder / COMPOSED.with_name("overrides.yaml")
    overrides.write_text(overrides.read_text() + "- hydra.run.dir=x\n- hydra/launcher=slurm\n")
    assert expand(f"from={folder}") == ["seed=2"]


def test_from_of_a_job_of_an_experiment_is_one_run(make_run):
    words = expand(f"from={make_run('experiment=seeds', 'seed=3', 'model=cvae')}")
    assert compose_config([CONF], "train", words).hydra.mode is None
    assert "seed=3" in words
    assert naming.setting_name(words[0]) != "experiment"


def test_from_with_a_sweep_replaces_the_value_of_the_run(make_run):
    folder = make_run("seed=2", "model.latent_dim=3")
    assert expand(f"from={folder}", "seed=1,2") == ["model.latent_dim=3", "seed=1,2"]


def test_from_an_earlier_version(tmp_path):
    words = expand(f"from={EARLIER}")
    assert "model.beta=2" in words
    composed = settings(*words)
    assert composed["callbacks"]["board"]["every_n_epochs"] == 10
    assert "graph" not in composed


REFUSED = [
    (["network=conv"], r"model.encoder.hidden: there is no such setting; .* was started with"),
    (["model=vae"], r"model.beta: there is no such setting; .* was started with model=beta_vae"),
    (["sede=2"], r"sede: there is no such setting; did you mean seed\?$"),
    (["ckpt=last"], "is for a new run, and ckpt= for one that goes on"),
    (["from=other"], "is the folder of one run"),
    (["model=nope"], "model=nope: there is no such model; possible are"),
]


@pytest.mark.parametrize(("more", "message"), REFUSED, ids=[more[0] for more, _ in REFUSED])
def test_from_refuses_in_one_line(make_run, more, message):
    folder = make_run("model=beta_vae", "model.beta=4", "model.encoder.hidden=[8]")
    with pytest.raises(UserError, match=message) as error:
        expand(f"from={folder}", *more)
    assert "\n" not in str(error.value)


def test_from_takes_groups_that_go_with_the_settings(make_run):
    folder = make_run("model=beta_vae", "model.beta=4")
    assert settings(*expand(f"from={folder}", "network=conv", "prior=vamp")) == settings(
        "model=beta_vae", "model.beta=4", "network=conv", "prior=vamp"
    )


def test_from_refuses_what_is_no_run(make_run, tmp_path):
    folder = make_run("seed=1")
    with pytest.raises(UserError, match=r"is no run folder, for there is no .*config.yaml"):
        expand(f"from={tmp_path / 'nothing'}")
    with pytest.raises(UserError, match="is the folder of one run"):
        expand(f"from={folder},{folder}")
    path = folder / COMPOSED.with_name("overrides.yaml")
    for text in ("{a", "a: b", "- 1", ""):
        path.write_text(text)
        with pytest.raises(UserError, match=r"overrides.yaml: damaged"):
            expand(f"from={folder}")
    path.write_text("- --config-dir=elsewhere\n")
    with pytest.raises(UserError, match="settings have names of plain letters"):
        expand(f"from={folder}")
    path.unlink()
    with pytest.raises(UserError, match=r"overrides.yaml: there is no such file"):
        expand(f"from={folder}")
    (folder / COMPOSED).write_text("")
    with pytest.raises(UserError, match="damaged"):
        expand(f"from={folder}")


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("callbacks.more", {"_target_": "os.mkdir", "path": "canary"}, "is no part of vaelab's"),
        ("model._target_", "mine.Squared", "is no part of vaelab's"),
        ("trainer.plugins", [{"_target_": "os.mkdir", "path": "x"}], "is no part of vaelab's"),
        ("model.note", "${oc.env:HOME}", "may read the environment"),
        ("seed", "${oc.create:'{_target_: os.mkdir}'}", "may read the environment"),
        ("callbacks.checkpoint.dirpath", "/elsewhere", "is where it writes"),
        ("callbacks.checkpoint.dirpath", "${model.note}", "is where it writes"),
        ("paths.data", "/elsewhere", "is where it writes"),
        ("data.source.folder", "/elsewhere", "is where it writes"),
    ],
)
def test_from_a_sent_folder_needs_trust(make_run, name, value, why):
    folder = make_run("model=beta_vae", "data.batch_size=50")
    edit_settings(folder, **{name.replace(".", "__"): value})
    with pytest.raises(UserError, match=re.escape(why)) as error:
        expand(f"from={folder}")
    assert str(error.value).endswith("where you trust this folder, give trust=true")
    words = expand(f"from={folder}", "trust=true")
    assert not {"from", "trust"} & {*map(naming.setting_name, words)}
    assert settings(*words)["data"]["batch_size"] == 50


def test_from_needs_no_trust_for_what_is_given_anew(make_run):
    folder = make_run("model._target_=mine.Squared", "paths.data=/elsewhere")
    words = expand(f"from={folder}", "model._target_=mine.Squared", "paths.data=/elsewhere")
    assert words == ["model._target_=mine.Squared", "paths.data=/elsewhere"]


def test_completion_knows_from(make_run):
    folder = make_run("model=beta_vae")
    assert completion.completions("train.py fr", CONF, "train") == ["from="]
    assert completion.completions(f"train.py from={folder}", CONF, "train") == [f"from={folder}"]
    line = f"train.py from={folder} model.bet"
    assert completion.completions(line, CONF, "train") == ["model.beta="]
    assert completion.completions("train.py from=nothing see", CONF, "train") == ["seed="]
    assert completion.completions("evaluate.py fr", CONF, "evaluate") == []


def run_train(monkeypatch, *words: str) -> None:
    """Runs `python train.py` in this process."""
    monkeypatch.setattr(sys, "argv", ["train.py", *words])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    train.main()


def test_help_shows_from_and_the_settings_of_the_run(make_run, monkeypatch, capsys):
    run_train(monkeypatch, f"from={make_run('model=beta_vae', 'model.beta=7')}", "--help")
    said = capsys.readouterr().out
    assert "from=FOLDER" in said
    assert "model.beta=7" in said


def test_cfg_job_shows_the_settings_of_the_run(make_run, monkeypatch, capsys):
    folder = make_run("model=beta_vae", "model.beta=7")
    run_train(monkeypatch, f"from={folder}", "seed=4", "--cfg", "job")
    shown = OmegaConf.to_container(OmegaConf.create(capsys.readouterr().out))
    assert shown == settings("model=beta_vae", "model.beta=7", "seed=4")


OWN = """\
# @package _global_
defaults:
  - override /model: beta_vae
model:
  beta: 5
trainer:
  max_epochs: 3
"""


def test_experiment_of_own_folder_starts_a_run_and_from_goes_without_it(
    make_run, tmp_path, monkeypatch, capsys
):
    own = tmp_path / "mine"
    (own / "experiment").mkdir(parents=True)
    (own / "experiment" / "mine.yaml").write_text(OWN)
    run_train(monkeypatch, "--config-dir", str(own), "experiment=mine", "seed=4", "--cfg", "job")
    shown = OmegaConf.to_container(OmegaConf.create(capsys.readouterr().out))
    assert shown == settings("model=beta_vae", "model.beta=5", "trainer.max_epochs=3", "seed=4")
    folder = make_run("experiment=mine", "seed=4", folders=(own, CONF))
    words = expand_from([f"from={folder}"], [own, CONF])
    assert changed(folder, words) == {}
    shutil.rmtree(own / "experiment")
    with pytest.raises(UserError, match="experiment=mine: there is no such experiment"):
        expand_from([f"from={folder}"], [CONF])


@pytest.mark.slow
def test_new_run_from_another_has_its_result_and_with_another_seed_not(tmp_path, monkeypatch):
    data = f"paths.data={tmp_path}/data"
    folders = {name: tmp_path / name for name in ("first", "same", "other")}
    run_train(monkeypatch, *TINY, data, f"hydra.run.dir={folders['first']}")
    start = f"from={folders['first']}"
    run_train(monkeypatch, start, data, f"hydra.run.dir={folders['same']}")
    run_train(monkeypatch, start, data, f"hydra.run.dir={folders['other']}", "seed=7")
    first, same, other = (
        json.loads((f / "results.json").read_text())["val/elbo"] for f in folders.values()
    )
    assert first == same != other
    overrides = OmegaConf.load(folders["same"] / COMPOSED.with_name("overrides.yaml"))
    assert set(overrides) == {*TINY, data}


@pytest.mark.slow
def test_sweep_from_a_run_has_its_settings_in_every_job(make_run, tmp_path, monkeypatch):
    folder = make_run(*TINY)
    sweep = tmp_path / "sweep"
    where = (f"hydra.sweep.dir={sweep}", f"paths.data={tmp_path}/data")
    run_train(monkeypatch, "-m", f"from={folder}", "seed=1,2", *where)
    for seed in (1, 2):
        found = OmegaConf.load(sweep / f"seed-{seed}" / COMPOSED)
        assert found.seed == seed
        assert found.model.encoder.hidden == [8]
        assert (sweep / f"seed-{seed}" / "results.json").exists()
