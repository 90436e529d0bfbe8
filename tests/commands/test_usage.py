"""What --help shows of every setting, and what TAB makes of half a word."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vaelab.commands import arguments, completion, help_text
from vaelab.commands.cli import CONF
from vaelab.commands.setting_comments import setting_meanings
from vaelab.pictures import KINDS

ROOT = Path(__file__).parents[2]
COMMANDS = ["train", "evaluate", "generate", "export", "report"]
CHOICES = [
    (command, f"{group}={choice}")
    for command in COMMANDS
    for group, choices in help_text.default_groups([CONF], command)
    for choice in choices
]


def main() -> None:
    """Stands for a command, whose file has a docstring."""


def said(command: str, *overrides: str) -> str:
    return help_text.usage(main, [CONF], command, overrides)


def rows(text: str) -> dict[str, str]:
    """The settings of a help text, and what it says that each means."""
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
def test_every_setting_has_a_meaning(command, chosen):
    overrides = [chosen, "data.source.path=x"] if chosen == "data=arrays" else [chosen]
    found = rows(said(command, *filter(None, overrides)))
    assert found
    assert [name for name, meaning in found.items() if not meaning] == []
    assert not [name for name in found if re.search(r"\b_\w+_\b", name)]


def test_help_names_what_there_is_to_choose_from(compose):
    pictures = re.findall(r"\w+", rows(said("generate"))["what"].partition("some of")[2])
    assert sorted(pictures) == sorted(KINDS)
    metrics = re.findall(r"\w+", rows(said("evaluate"))["what"].partition("some of")[2])
    assert sorted(metrics) == sorted(compose().metrics)
    assert "one of safetensors, onnx" in rows(said("export"))["what"]


def test_what_is_chosen_is_first_and_its_settings_are_there():
    text = said("train", "model=beta_vae", "model.beta=7", "annealing=cyclical")
    assert re.search(r"model=beta_vae +or ae, beta_tcvae", text)
    assert "model.beta=7 " in text
    assert rows(text)["annealing.duration"].startswith("how long")
    assert rows(text)["annealing.schedule.cycles"].startswith("rises")


def test_lines_fit_the_terminal(monkeypatch):
    for width in (70, 100, 200):
        monkeypatch.setenv("COLUMNS", str(width))
        assert max(map(len, said("generate").splitlines())) <= min(width, help_text.MOST)


def test_a_users_own_files_have_meanings_too(tmp_path):
    (tmp_path / "model").mkdir()
    own = "defaults: [vae]\n_target_: mine.Squared\npower: 2  # of the rate\n  # in the objective\n"
    (tmp_path / "model" / "mine.yaml").write_text(own)
    text = help_text.usage(main, [tmp_path, CONF], "train", ["model=mine"])
    assert rows(text)["model.power"] == "of the rate in the objective"
    assert rows(text)["model.latent_dim"] == "dimensions of the latent code z"
    assert "mine" in text


def test_a_comment_is_behind_its_value(tmp_path):
    lines = [
        "a: 'x # y'  # of a", "b: [1,", "  2]  # of b", "c:", "  d: 1  # of d", "  # no one's",
        "e: 1", "f: {}  # of f", "    # and more", "g: '#'", "h:  # of h", "  - 1", "i:", "  - 2",
    ]  # fmt: skip
    (tmp_path / "x.yaml").write_text("\n".join(lines))
    found = setting_meanings([tmp_path], "x", {})
    assert found == {"a": "of a", "b": "of b", "c.d": "of d", "f": "of f and more", "h": "of h"}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name):
    command = [sys.executable, f"{name}.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"python {name}.py" in done.stdout
    models = [path.stem for path in (CONF / "model").glob("[!_]*.yaml")]
    assert name != "train" or all(model in done.stdout for model in models)
    assert ("annealing" in done.stdout) == ("  -m " in done.stdout) == (name == "train")


COMPLETED = {
    "train": {
        "python train.py model=beta_": ["model=beta_tcvae", "model=beta_vae"],
        "python train.py mod": ["model.", "model="],
        "python train.py model=beta_vae model.be": ["model.beta="],
        "python train.py model=vae model.be": [],
        "python train.py model.enc": ["model.encoder."],
        "python train.py model.encoder.": ["model.encoder.hidden="],
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
    },
    "generate": {
        "python generate.py what=sam": ["what=samples"],
        "python generate.py what=samples,cl": ["what=samples,class_grid"],
        "python generate.py temp": ["temperature="],
    },
    "export": {"python export.py what=": ["what=all", "what=safetensors", "what=onnx"]},
    "evaluate": {"vaelab-evaluate what=a": ["what=all", "what=ais"]},
}


@pytest.mark.parametrize(
    ("name", "line"), [(name, line) for name, lines in COMPLETED.items() for line in lines]
)
def test_what_a_line_may_become(name, line):
    found = completion.completions(line, CONF, name, lists=["run", "what"])
    assert found == COMPLETED[name][line]


def test_runs_are_completed_without_what_is_in_them(tmp_path):
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
def test_completion_for_another_shell_is_refused(word):
    with pytest.raises(Exception, match="possible are install=bash, install=zsh, install=fish"):
        completion.shell_completion([word] if word else [], CONF, "train", [])


IN_A_SHELL = """
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
def test_bash_completes_by_it():
    script = IN_A_SHELL.format(root=ROOT, python=sys.executable)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.split("\n") == ["beta_vae", "model.latent_dim=", "", ""]


def test_a_folder_of_configurations_is_found_among_flags():
    assert arguments.config_dirs([]) == []
    assert arguments.config_dirs(["--config-dir", "a", "-m", "-cd", "b"]) == [Path("a"), Path("b")]
    assert arguments.config_dirs(["--config-dir=a"]) == [Path("a")]
