"""Ways in which a run folder that somebody sent could do harm, each as a change of a harmless one.

An attack is called with the run folder and a folder of the victim's, in which nothing may change;
what it makes there is called `canary`. The victim's environment has `SECRET` in a variable.
"""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

SECRET, VARIABLE = "s3cret-7f1c", "VAELAB_TEST_SECRET"
Attack = Callable[[Path, Path], None]


class Payload:
    """An object whose unpickling makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def edit_config(folder: Path, **changes) -> None:
    """Changes settings of a run's configuration; `__` in a name stands for a dot."""
    path = folder / ".hydra" / "config.yaml"
    content = yaml.safe_load(path.read_text())
    for name, value in changes.items():
        *parents, last = name.split("__")
        node = content
        for parent in parents:
            node = node[parent]
        node[last] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False))


def setting(name: str, value: Callable[[str], object]) -> Attack:
    """Returns the attack that sets a setting to a value made from the path of the canary."""
    return lambda folder, home: edit_config(folder, **{name: value(str(home / "canary"))})


def make_folder(canary: str) -> dict[str, object]:
    """Returns a node that makes the canary."""
    return {"_target_": "os.mkdir", "path": canary}


def created(canary: str) -> str:
    """Returns an interpolation that makes such a node."""
    return "${oc.create:'{_target_: os.mkdir, path: " + canary + "}'}"


def load_pickle(folder: Path, home: Path) -> None:
    """The data source is `torch.load` of a pickle in the folder."""
    file = folder / "payload.pt"
    file.write_bytes(pickle.dumps(Payload(home / "canary")))
    node = {"_target_": "torch.load", "f": str(file), "weights_only": False}
    edit_config(folder, data__source=node)


def name_module_beside(folder: Path, home: Path) -> None:
    """The likelihood is in a module that lies in the folder that commands are started in."""
    Path("sent_module.py").write_text(f"import os\nos.mkdir({str(home / 'canary')!r})\n")
    edit_config(folder, model__likelihood={"_target_": "sent_module.Likelihood"})


def tag_yaml(folder: Path, home: Path) -> None:
    """The YAML has a tag that calls a function."""
    path = folder / ".hydra" / "config.yaml"
    call = f"!!python/object/apply:os.mkdir ['{home / 'canary'}']"
    path.write_text(path.read_text() + f"more: {call}\n")


def pickle_checkpoint(folder: Path, home: Path) -> None:
    """The checkpoint is a pickle that calls a function."""
    for name in ("best", "last"):
        path = folder / "checkpoints" / f"{name}.ckpt"
        torch.save({"state_dict": {}, "vaelab": Payload(home / "canary")}, path)


def link_checkpoint(folder: Path, home: Path) -> None:
    """The checkpoints are links to a file of the victim's."""
    for name in ("best", "last"):
        path = folder / "checkpoints" / f"{name}.ckpt"
        path.unlink(missing_ok=True)
        path.symlink_to(home / "own.txt")


def link(name: str, target: str) -> Attack:
    """Returns the attack that puts a link into the folder, to something of the victim's."""

    def attack(folder: Path, home: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            path.rename(home.parent / "moved")
        path.unlink(missing_ok=True)
        path.symlink_to(home / target)

    return attack


SECRET_TEXT = "${oc.env:" + VARIABLE + "}"

CODE: dict[str, Attack] = {
    "source loads a pickle": load_pickle,
    "source makes a folder": setting("data__source", make_folder),
    "data makes a folder": setting("data", make_folder),
    "model makes a folder": setting(
        "model", lambda path: {"_target_": "builtins.dict", "more": make_folder(path)}
    ),
    "likelihood makes a folder": setting("model__likelihood", make_folder),
    "target in a list": setting("model__encoder__hidden", lambda path: [3, make_folder(path)]),
    "target in _args_": setting(
        "model__prior",
        lambda path: {"_target_": "vaelab.priors.StandardNormal", "_args_": [make_folder(path)]},
    ),
    "function of vaelab that writes": setting(
        "data__source",
        lambda path: {
            "_target_": "vaelab.training.json_files.write_json",
            "path": {"_target_": "pathlib.Path", "_args_": [path]},
            "content": {},
        },
    ),
    "oc.create in the model": setting("model__likelihood", created),
    "oc.create in the data": setting("data__source", created),
    "oc.create behind a reference": lambda folder, home: edit_config(
        folder, seed=created(str(home / "canary")), data__source="${seed}"
    ),
    "module beside the command": name_module_beside,
}
"""Attacks that run code where the folder is trusted, as the tests check."""
NO_SETTINGS = {"target in a list", "oc.create behind a reference"}
"""Of these attacks, those that the check of types refuses even there."""

OTHER: dict[str, Attack] = {
    "subprocess with _args_": setting(
        "model__prior", lambda path: {"_target_": "subprocess.run", "_args_": [["mkdir", path]]}
    ),
    "os behind a module of vaelab": setting(
        "model__prior",
        lambda path: {"_target_": "vaelab.runs.folder.subprocess.run", "args": ["mkdir", path]},
    ),
    "exec": setting(
        "model__condition",
        lambda path: {"_target_": "builtins.exec", "_args_": [f"import os; os.mkdir({path!r})"]},
    ),
    "partial function": setting(
        "model__optimizer", lambda path: make_folder(path) | {"_partial_": True}
    ),
    "torch.hub": setting(
        "model__encoder",
        lambda path: {"_target_": "torch.hub.load", "repo_or_dir": path, "model": "x"},
    ),
    "vaelab itself": setting("model__encoder", lambda path: {"_target_": "vaelab.__main__.main"}),
    "target that is a list": setting("model", lambda path: {"_target_": ["os", "mkdir"]}),
    "escaped oc.create": setting("data__source", lambda path: "\\" + created(path)),
    "oc.create as a folder of data": setting("paths__data", created),
    "logger": setting("logger", make_folder),
    "callback": setting("callbacks__more", make_folder),
    "trainer": setting("trainer", make_folder),
    "metric": setting("metrics__reconstruction", make_folder),
    "schedule": setting("annealing", make_folder),
    "data written elsewhere": setting("data__source__folder", str),
    "data written elsewhere by paths.data": setting("paths__data", str),
    "download written elsewhere": setting(
        "data__source",
        lambda path: {
            "_target_": "vaelab.data.TorchvisionDataset",
            "name": "FakeData",
            "folder": path,
            "file": "../canary/x.safetensors",
            "by_hand": "",
        },
    ),
    "pictures prepared elsewhere": setting(
        "data__source",
        lambda path: {
            "_target_": "vaelab.data.Torchvision",
            "name": "FakeData",
            "folder": path,
            "options": {"size": 30, "image_size": [1, 28, 28]},
        },
    ),
    "download to another root": setting(
        "data__source",
        lambda path: {
            "_target_": "vaelab.data.Torchvision",
            "name": "KMNIST",
            "folder": "data",
            "options": {"root": path},
        },
    ),
    "checkpoints written elsewhere": setting(
        "callbacks__checkpoint__dirpath", lambda path: f"{path}/checkpoints"
    ),
    "environment in class names": setting(
        "data__source",
        lambda path: {
            "_target_": "vaelab.data.TorchvisionDataset",
            "name": "MNIST",
            "folder": path,
            "file": "x.safetensors",
            "by_hand": SECRET_TEXT,
            "classes": [SECRET_TEXT] * 10,
        },
    ),
    "environment in the source": setting("data__source__folder", lambda path: SECRET_TEXT),
    "environment in a setting of the source": setting(
        "data__source", lambda path: {"_target_": "vaelab.data.Arrays", "path": SECRET_TEXT}
    ),
    "environment behind a reference": lambda folder, home: edit_config(
        folder, seed=SECRET_TEXT, data__source__folder="${seed}"
    ),
    "environment in the length": setting("trainer__max_epochs", lambda path: SECRET_TEXT),
    "environment in the likelihood": setting(
        "model__likelihood", lambda path: {"_target_": SECRET_TEXT}
    ),
    "tag of YAML": tag_yaml,
    "pickle as checkpoint": pickle_checkpoint,
    "link as checkpoint": link_checkpoint,
    "link as evaluation": link("evaluation.json.partial", "own.txt"),
    "link as results": link("results.json.partial", "own.txt"),
    "link as folder of pictures": link("generated", "."),
    "link as picture": link("generated/samples.png", "own.txt"),
    "link as folder of the export": link("export", "."),
    "link as export": link("export/config.json", "own.txt"),
    "link as encoded images": link("encoded.npz", "own.txt"),
    "link as folder of the report": link("report", "."),
    "link as report": link("report/report.html", "own.txt"),
    "link as partial checkpoint": link("checkpoints/.last.ckpt.partial", "own.txt"),
    "link as figure": link("figures/samples.png", "own.txt"),
    "link as figures": link("figures", "."),
    "link as configuration": link(".hydra/config.yaml", "own.txt"),
    "link as log": link("job.log", "own.txt"),
    "link as curves": link("metrics.csv", "own.txt"),
    "huge model": setting("model__latent_dim", lambda path: 10**12),
    "huger model": setting("model__latent_dim", lambda path: 10**30),
    "huge layers": setting("model__encoder__hidden", lambda path: [10**9, 10**9]),
}
ATTACKS = CODE | OTHER
