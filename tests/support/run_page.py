"""Runs the blocks of Markdown pages in the current folder: python run_page.py PAGE [PAGE ...].

Commands are shortened, see `support.guide_pages`, and each runs in a fork of this process, which
has imported vaelab. All Python blocks run in one fork, where trainings have few batches. Prints
what is run and what it says; exits with 1 after the first that fails.
"""

import os
import re
import sys
import traceback
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Any

import lightning
import torch
from omegaconf import OmegaConf

import vaelab
from support.guide_pages import FEW_IMAGES, Block, after_variables, blocks_of, command_name, shorten
from vaelab.commands import encode, evaluate, export, generate, main, report, train
from vaelab.evaluation import classifier

IMPORTED = (encode, evaluate, export, generate, report, train)
"""Commands, so that forks need not import them."""
PLACE = re.compile(r"outputs/(?:(\w+)/)?\.\.\.|outputs/(\w+)/2026-\.\.\.")
"""A run folder that a page leaves open: of any model, of one, or a sweep."""


def fill_places(word: str) -> str:
    """Returns a word with the newest run folder of that model in place of `outputs/vae/2026-...`.

    Raises:
        IndexError: If no command before it has made one.
    """

    def newest(found: re.Match[str]) -> str:
        """Returns the newest folder that fits."""
        kind = found[1] or found[2] or "*"
        folders = [*Path("outputs").glob(f"{kind}/*"), *Path("outputs").glob("*")]
        runs = [f for f in folders if (f / "results.json").exists() or kind == "sweeps"]
        runs = [f for f in runs if kind in ("*", f.parent.name)]
        return str(max(runs, key=lambda folder: folder.stat().st_mtime))

    return PLACE.sub(newest, word)


def run_command(words: list[str]) -> int:
    """Runs a command in a fork, in its shortest form; returns the exit code."""
    words = [fill_places(word) for word in shorten(words)]
    print("$", *words, flush=True)
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        for assignment in words[: len(words) - len(after_variables(words))]:
            key, _, value = assignment.partition("=")
            os.environ[key] = value
            if key == "PYTHONPATH":
                sys.path.insert(0, os.path.abspath(value))
        sys.argv = [sys.argv[0], *after_variables(words)[1:]]
        sys.argv[0] = "vaelab"
        main.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run_python_blocks(pipe: Connection) -> None:
    """Runs each source that comes through a pipe in one namespace; sends back whether it failed.

    Shortens `vaelab.fit`, `Run.evaluate` and `lightning.Trainer` in this process.
    """
    fit, measure, trainer_class = vaelab.fit, vaelab.Run.evaluate, lightning.Trainer
    few_images: Any = OmegaConf.to_container(OmegaConf.from_dotlist(FEW_IMAGES))

    def short_fit(*arguments: Any, overrides: Any = (), **settings: Any) -> Any:
        """Calls `vaelab.fit` for two batches."""
        limits = [f"+trainer.limit_{part}_batches=2" for part in ("train", "val", "test")]
        small = ["callbacks.board.projector_images=20"]
        words = [*overrides, *limits, *small]
        return fit(*arguments, overrides=words, **settings | {"epochs": 1})

    def short_evaluate(run: vaelab.Run, *what: str, **settings: Any) -> Any:
        """Calls `Run.evaluate` for few images and samples."""
        return measure(run, *what, **settings | few_images | {"num_samples": 4})

    class ShortTrainer(trainer_class):  # type: ignore[misc,valid-type]
        """A Trainer of two batches."""

        def __init__(self, **options: Any) -> None:
            limits = {f"limit_{part}_batches": 2 for part in ("train", "val")}
            super().__init__(**options | limits | {"max_epochs": 1, "logger": False})

    vaelab.fit, vaelab.Run.evaluate = short_fit, short_evaluate  # type: ignore[method-assign]
    lightning.Trainer = ShortTrainer  # type: ignore[assignment,misc]
    sys.path.insert(0, os.getcwd())
    names: dict[str, Any] = {"__name__": "__main__", "vaelab": vaelab, "lightning": lightning}
    names |= starting_names()
    while (source := pipe.recv()) is not None:
        try:
            exec(compile(source, "<block>", "exec"), names)
            sys.stdout.flush()
            pipe.send(False)
        except BaseException:
            traceback.print_exc()
            pipe.send(True)


def starting_names() -> dict[str, Any]:
    """Returns images, labels and a loader that README's blocks take for granted."""
    images = torch.randint(0, 256, (40, 28, 28), dtype=torch.uint8)
    labels = torch.arange(40) % 10
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images, labels), 20)
    return {"torch": torch, "images": images, "labels": labels, "loader": loader}


def run_block(block: Block, pipe: Connection) -> bool:
    """Runs or writes a block; returns whether it failed."""
    if block.file:
        path = Path(block.file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text + "\n", encoding="utf-8")
    elif block.is_run and block.language == "python":
        print(block.text, flush=True)
        pipe.send(block.text)
        return bool(pipe.recv())
    elif block.is_run:
        for words in block.commands:
            began = monotonic()
            if code := run_command(words):
                print(f"exit code {code} of {command_name(words)}")
                return True
            print(f"({monotonic() - began:.1f} s)", flush=True)
    return False


def run_pages(pages: list[Path]) -> int:
    """Runs all blocks of pages in order, up to one that fails; returns the exit code.

    Sets the training steps of the classifier of images to 10 in this process and its forks.
    """
    classifier.STEPS = 10
    context = get_context("fork")
    mine, other = context.Pipe()
    reader = context.Process(target=run_python_blocks, args=(other,))
    reader.start()
    blocks = [(page, block) for page in pages for block in blocks_of(page)]
    failed = next(((page, block) for page, block in blocks if run_block(block, mine)), None)
    mine.send(None)
    reader.join()
    if failed:
        print(f"{failed[0].name}, line {failed[1].line}, failed")
    return int(failed is not None)


if __name__ == "__main__":
    sys.exit(run_pages([Path(word).resolve() for word in sys.argv[1:]]))
