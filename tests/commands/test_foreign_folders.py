"""Tests that a run folder made by somebody else does no harm: a table of attacks and commands.

After every command the folders of the victim are as they were, and nothing says the secret in the
victim's environment. That the attacks work is tested where the folder is trusted.
"""

import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from support.attacks import ATTACKS, CODE, NO_SETTINGS, SECRET, VARIABLE, edit_config

import vaelab
from vaelab.commands import encode, evaluate, export, generate, report, train
from vaelab.data import Digits
from vaelab.errors import UserError
from vaelab.runs import finished

SENT = Path(__file__).parent / "earlier" / "before_floors" / "run"
OVERRIDES = (SENT / ".hydra" / "overrides.yaml").read_text().replace("- ", "").split()
COMMANDS = {
    "evaluate": (evaluate, ["run={}", "what=reconstruction", "rerun=true"]),
    "generate": (generate, ["run={}", "what=samples"]),
    "encode": (encode, ["run={}", "num_samples=0", "reference=10"]),
    "export": (export, ["run={}", "what=safetensors"]),
    "report": (report, ["sweep={}"]),
    "continue": (
        train,
        [*OVERRIDES, "hydra.run.dir={}", "ckpt=last", "trainer.max_epochs=3", "logger=csv"],
    ),
    "start anew": (
        train,
        ["from={}", "hydra.run.dir={}/anew", "trainer.max_epochs=1", "logger=none"],
    ),
    "measure": (train, [*OVERRIDES, "hydra.run.dir={}", "evaluate=[latents]", "logger=none"]),
}


def run_command(name: str, folder: Path, *more: str) -> int:
    """Runs a command on a run folder in this process; returns its exit code."""
    command, words = COMMANDS[name]
    with pytest.MonkeyPatch.context() as patch:
        given = [word.format(folder) for word in words]
        patch.setattr(sys, "argv", [f"{command.__name__.rpartition('.')[2]}.py", *given, *more])
        for variable in ("HYDRA_FULL_ERROR", "VAELAB_SHORT_ERROR"):
            patch.delenv(variable, raising=False)
        try:
            command.main()
        except SystemExit as error:
            return int(error.code or 0)
    return 0


def tree(folder: Path) -> dict[str, str]:
    """Returns what every path below a folder is: a text, a link or a folder."""
    return {
        str(path.relative_to(folder)): str(path.readlink())
        if path.is_symlink()
        else "a folder"
        if path.is_dir()
        else path.read_text(errors="replace")
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def data_folder(tmp_path_factory) -> Path:
    """The victim's folder of data, with the prepared digits."""
    folder = tmp_path_factory.mktemp("data")
    Digits(str(folder))()
    return folder


@pytest.fixture(scope="module")
def unmeasured_run(data_folder, tmp_path_factory) -> Path:
    """A run folder that `measure` takes up: finished, but its metrics are not measured yet."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VAELAB_DATA", str(data_folder))
        assert run_command("measure", folder) == 0
    path = folder / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"unmeasured": ["latents"]}))
    (folder / "evaluation.json").unlink()
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch, data_folder) -> Path:
    """The victim's folder, which must not change; commands are started in `tmp_path/here`."""
    for name in ("home", "here"):
        (tmp_path / name).mkdir()
    (tmp_path / "home" / "own.txt").write_text(f"key: {SECRET}\n")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(tmp_path / "here")
    monkeypatch.setenv("VAELAB_DATA", str(data_folder))
    monkeypatch.setenv(VARIABLE, SECRET)
    yield tmp_path / "home"
    sys.modules.pop("sent_module", None)


@pytest.fixture
def sent(tmp_path, request) -> Path:
    """A copy of a run folder that an attack may change; of an earlier run, but for `measure`."""
    measure = "measure" in request.node.name
    folder = request.getfixturevalue("unmeasured_run") if measure else SENT
    return Path(shutil.copytree(folder, tmp_path / "sent"))


def check_unharmed(home: Path, folder: Path, before: dict[str, str], said: str) -> None:
    """Fails if anything of the victim's has changed, or the secret is anywhere in the folder."""
    assert tree(home) == before
    assert sorted(os.listdir(Path.cwd())) in ([], ["sent_module.py"])
    assert SECRET not in said
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.resolve().is_relative_to(folder):
            assert SECRET.encode() not in path.read_bytes(), path


@pytest.mark.slow
@pytest.mark.parametrize("command", [*COMMANDS, "load", "load_run"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_does_no_harm(attack, command, home, sent, capfd):
    ATTACKS[attack](sent, home)
    before = tree(home)
    if command in COMMANDS:
        assert run_command(command, sent) in (0, 2)
    else:
        with suppress(UserError):
            {"load": vaelab.load, "load_run": finished.load_run}[command](sent)
    said = capfd.readouterr()
    check_unharmed(home, sent, before, said.out + said.err)
    errors = [line for line in said.err.splitlines() if not line.startswith("warning: ")]
    assert len([line for line in errors if line.startswith("error: ")]) <= 1
    assert "Traceback" not in said.err


@pytest.mark.parametrize("attack", sorted(CODE.keys() - NO_SETTINGS))
def test_attack_works_where_folder_is_trusted(attack, home, sent):
    CODE[attack](sent, home)
    with suppress(Exception):  # what the attack makes is no model
        finished.load_run(sent, trust=True)
    assert (home / "canary").exists()


@pytest.mark.parametrize("attack", CODE)
def test_load_run_refuses_code_in_one_line(attack, home, sent):
    CODE[attack](sent, home)
    with pytest.raises(UserError, match=r"where you trust this folder, give trust=true") as error:
        finished.load_run(sent)
    assert "\n" not in str(error.value)
    assert not (home / "canary").exists()


def test_refusal_names_every_foreign_target(home, sent):
    edit_config(sent, model___target_="mine.Squared", data__source={"_target_": "torch.load"})
    with pytest.raises(UserError) as error:
        finished.load_run(sent)
    assert str(error.value).startswith(
        "model._target_=mine.Squared, data.source._target_=torch.load are no parts of vaelab's"
    )


def test_foreign_callbacks_and_loggers_need_no_trust(home, sent):
    node = {"_target_": "mine.Callback"}
    edit_config(sent, callbacks__more=node, logger=node, trainer__strategy=node)
    assert finished.load_run(sent)[0].step == 16


OWN_VARIANT = """
from vaelab.models import BetaVAE


class Squared(BetaVAE):
    pass
"""


@pytest.mark.slow
def test_own_variant_is_evaluated_in_its_training_and_else_with_trust(home, tmp_path, capsys):
    Path("sent_module.py").write_text(OWN_VARIANT)
    folder = tmp_path / "own"
    own = [*OVERRIDES, "model._target_=sent_module.Squared", f"hydra.run.dir={folder}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *own, "evaluate=[latents]", "logger=none"])
        train.main()
    assert "latents" in json.loads((folder / "evaluation.json").read_text())["settings"]
    for name in ("evaluate", "generate", "encode", "export"):
        capsys.readouterr()
        assert run_command(name, folder) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "model._target_=sent_module.Squared is no part of vaelab's" in line
        assert "trust=true" in line
        assert run_command(name, folder, "trust=true") == 0


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_run_of_vaelab_needs_no_trust(command, home, sent):
    assert run_command(command, sent) == 0
    assert tree(home) == {"own.txt": f"key: {SECRET}\n"}
