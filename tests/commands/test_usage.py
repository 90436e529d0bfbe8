"""Tests of --help and of completion by TAB, against expected texts.

The help texts below begin with this docstring, so it is narrow.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vaelab.commands import arguments, completion, help_text
from vaelab.commands.config_folders import CONF
from vaelab.commands.setting_comments import setting_meanings
from vaelab.pictures import KINDS

ROOT = Path(__file__).parents[2]
COMMANDS = ["train", "evaluate", "generate", "encode", "export", "report"]
CHOICES = [
    (command, f"{group}={choice}")
    for command in COMMANDS
    for group, choices in help_text.default_groups([CONF], command)
    for choice in choices
]

REQUIRED = {
    "data=arrays": "data.source.path=x",
    "data=folder": "data.source.path=x",
    "data=huggingface": "data.source.name=x",
    "data=signals": "data.source.path=x",
    "data=torchvision": "data.source.name=x",
    "data=vectors": "data.source.path=x",
}


def main() -> None:
    """Stands for a command, whose help text begins with the docstring of its module."""


def usage_text(command: str, *overrides: str) -> str:
    """The text of --help of a command with these overrides."""
    return help_text.usage(main, [CONF], command, overrides)


def meanings(text: str) -> dict[str, str]:
    """The meaning of each setting in a help text, by name."""
    part = text.partition("Settings, by name=value:")[2].partition("Flags:")[0]
    found: dict[str, str] = {}
    for line in part.splitlines():
        if name := re.match(r"  (\S+?)=(\S*)", line):
            last = name[1]
            found[last] = line[name.end() :].strip()
        elif line.strip():
            found[last] = f"{found[last]} {line.strip()}".strip()
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "chosen"), [*((command, "") for command in COMMANDS), *CHOICES]
)
def test_help_explains_every_setting(command, chosen):
    found = meanings(usage_text(command, *filter(None, [chosen, REQUIRED.get(chosen)])))
    assert found
    assert [name for name, meaning in found.items() if not meaning] == []
    assert not [name for name in found if re.search(r"\b_\w+_\b", name)]


def test_help_lists_all_pictures_and_metrics(compose):
    pictures = re.findall(r"\w+", meanings(usage_text("generate"))["what"].partition("some of")[2])
    assert sorted(pictures) == sorted(KINDS)
    metrics = re.findall(r"\w+", meanings(usage_text("evaluate"))["what"].partition("some of")[2])
    assert sorted(metrics) == sorted(compose().metrics)
    assert "one of safetensors, onnx" in meanings(usage_text("export"))["what"]


def test_help_shows_given_choices_and_their_settings():
    text = usage_text("train", "model=beta_vae", "model.beta=7", "annealing=cyclical")
    assert re.search(r"model=beta_vae +or ae, beta_tcvae", text)
    assert "model.beta=7 " in text
    assert meanings(text)["annealing.duration"].startswith("how long")
    assert meanings(text)["annealing.schedule.cycles"].startswith("rises")


def test_help_lines_fit_terminal_width(monkeypatch):
    for width in (70, 100, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        assert max(map(len, usage_text("generate").splitlines())) <= min(width, help_text.MOST)


def test_help_explains_settings_of_user_config_files(tmp_path):
    (tmp_path / "model").mkdir()
    own = "defaults: [vae]\n_target_: mine.Squared\npower: 2  # of the rate\n  # in the objective\n"
    (tmp_path / "model" / "mine.yaml").write_text(own)
    text = help_text.usage(main, [tmp_path, CONF], "train", ["model=mine"])
    assert meanings(text)["model.power"] == "of the rate in the objective"
    assert meanings(text)["model.latent_dim"] == "dimensions of the latent code z"
    assert "mine" in text


def test_setting_meanings_reads_comments_after_values(tmp_path):
    lines = [
        "a: 'x # y'  # of a", "b: [1,", "  2]  # of b", "c:", "  d: 1  # of d", "  # no one's",
        "e: 1", "f: {}  # of f", "    # and more", "g: '#'", "h:  # of h", "  - 1", "i:", "  - 2",
    ]  # fmt: skip
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    found = setting_meanings([tmp_path], "x", {})
    assert found == {"a": "of a", "b": "of b", "c.d": "of d", "f": "of f and more", "h": "of h"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_each_script_shows_its_own_choices(name):
    command = [sys.executable, f"{name}.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python {name}.py" in done.stdout
    models = [path.stem for path in (CONF / "model").glob("[!_]*.yaml")]
    assert name != "train" or all(model in done.stdout for model in models)
    assert ("annealing" in done.stdout) == ("  -m " in done.stdout) == (name == "train")


COMPLETIONS = {
    "train": {
        "python train.py model=beta_": ["model=beta_tcvae", "model=beta_vae"],
        "python train.py mod": ["model.", "model="],
        "python train.py model=beta_vae model.be": ["model.beta="],
        "python train.py model=vae model.be": [],
        "python train.py model.enc": ["model.encoder."],
        "python train.py model.encoder.": ["model.encoder.activation=", "model.encoder.hidden="],
        "python train.py rerun=": ["rerun=false", "rerun=true"],
        "python train.py model.latent_dim=": ["model.latent_dim=16"],
        "python train.py data=_": [],
        "python train.py -m model=vae,cv": ["model=vae,cvae"],
        "python train.py model=vae,cv": [],
        "python train.py -m model=vae,ae model.lat": ["model.latent_dim="],
        "python train.py model=nope se": ["seed="],
        "python train.py 'open se": ["seed="],
        "python train.py hydra/l": ["hydra/launcher="],
        "python train.py --c": ["--cfg", "--config-dir"],
        "python train.py -": ["-m", "--help", "--cfg", "--config-dir"],
    },
    "generate": {
        "python generate.py what=sam": ["what=samples"],
        "python generate.py what=samples,cl": ["what=samples,class_grid"],
        "python generate.py temp": ["temperature="],
        "python generate.py -": ["--help", "--cfg", "--config-dir"],
    },
    "encode": {
        "python encode.py sc": ["score="],
        "python encode.py resize=": ["resize=false", "resize=true"],
        "vaelab encode num_samples=": ["num_samples=100"],
    },
    "export": {"python export.py what=": ["what=all", "what=safetensors", "what=onnx"]},
    "evaluate": {"vaelab-evaluate what=a": ["what=all", "what=ais"]},
}


@pytest.mark.parametrize(
    ("name", "line"), [(name, line) for name, lines in COMPLETIONS.items() for line in lines]
)
def test_completions_of_partial_command_lines(name, line):
    found = completion.completions(line, CONF, name, lists=["run", "what"])
    assert found == COMPLETIONS[name][line]


def test_completions_of_run_paths_stop_at_run_folders(tmp_path):
    for folder in ("vae/one/.hydra", "vae/one/checkpoints", "vae/two/.hydra", "vae/_x", "vae/.y"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "vae" / "file").touch()
    begin = f"python evaluate.py run={tmp_path}"

    def ends(line: str) -> list[str]:
        found = completion.completions(line, CONF, "evaluate", lists=["run"])
        return [each.removeprefix(f"run={tmp_path}") for each in found]

    assert ends(f"{begin}/v") == ["/vae/"]
    assert ends(f"{begin}/vae/") == ["/vae/one", "/vae/two"]
    assert ends(f"{begin}/vae/one,{tmp_path}/vae/t") == [f"/vae/one,{tmp_path}/vae/two"]
    assert ends(f"{begin}/nowhere/") == []
    paths = completion.completions(f"python export.py to={tmp_path}/vae/f", CONF, "export")
    assert paths == [f"to={tmp_path}/vae/file"]


@pytest.mark.parametrize("word", ["install=tcsh", "uninstall=bash", ""])
def test_shell_completion_refuses_unknown_shell_or_action(word):
    with pytest.raises(Exception, match="possible are install=bash, install=zsh, install=fish"):
        completion.shell_completion([word] if word else [], CONF, "train", [])


BASH_SCRIPT = """
cd {root}
eval "$({python} train.py -sc install=bash)"
for line in "{python} train.py model=beta_v" "{python} train.py model.latent_d" "{python} x.py a"
do
    COMP_LINE=$line COMP_POINT=${{#line}} COMP_WORDS=($line) COMP_CWORD=2
    _vaelab
    echo "${{COMPREPLY[@]}}"
done
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_settings_and_choices():
    script = BASH_SCRIPT.format(root=ROOT, python=sys.executable)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.split("\n") == ["beta_vae", "model.latent_dim=", "", ""]


def test_config_dirs_returns_paths_of_config_dir_flags():
    assert arguments.config_dirs([]) == []
    assert arguments.config_dirs(["--config-dir", "a", "-m", "-cd", "b"]) == [Path("a"), Path("b")]
    assert arguments.config_dirs(["--config-dir=a"]) == [Path("a")]
