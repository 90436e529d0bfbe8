"""What damaged data files do: python benchmarks/mutated_data.py DATA [files].

DATA has MNIST/raw, FashionMNIST/raw and mnist.safetensors. Each mutated file is loaded up to the
first training batch in a process of its own, with a time limit. What can be seen from a file, or
from what is published of a known set, has to be refused in one line, or to give the data of the
file that it was made of; to train on anything else is the fault that is looked for. Bytes of a
user's own pixels have no checksum in `.npy` and `.safetensors` and are left alone.
"""

import hashlib
import io
import json
import os
import random
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save
from tables import show

from vaelab.data import Arrays, Digits, DSprites, Images, TorchvisionDataset
from vaelab.data.splits import Splits
from vaelab.data.sprites import sprite_factors
from vaelab.errors import UserError

LIMIT = 60  # seconds until a process counts as hanging
RAW = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
       "t10k-labels-idx1-ubyte")  # fmt: skip


def digest(source: Callable[[], Splits]) -> str:
    """Loads the data and the first training batch; returns a digest of all that is trained on."""
    data = Images(source=source, batch_size=16, val_size=16, test_size=16, pixels="grey")
    splits = data.splits
    data.setup("fit")
    next(iter(data.train))
    found = hashlib.sha256(repr(data.shapes).encode())
    for part, images in splits.parts.items():
        rows = images if isinstance(images, torch.Tensor) else images[torch.arange(len(images))]
        found.update(rows.contiguous().numpy())
        found.update(getattr(splits, f"{part}_labels").numpy())
    for column in splits.columns.values():
        found.update(column.train.numpy())
    return found.hexdigest()


def outcome(make: Callable[[], Callable[[], Splits]]) -> tuple[str, str]:
    """Loads what `make` makes the source of, in a process of its own; returns how that ended.

    That is loaded and a digest, refused and the message, a traceback, killed, or a hang.
    """
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        os.setpgid(0, 0)
        os.close(read)
        try:
            torch.set_num_threads(1)
            found = ("loaded", digest(make()))
        except UserError as error:
            found = ("refused" if "\n" not in str(error) else "refused in many lines", str(error))
        except BaseException as error:
            found = ("traceback", repr(error))
        os.write(write, json.dumps(found).encode()[:60000])
        os._exit(0)
    os.close(write)
    ready, _, _ = select.select([read], [], [], LIMIT)
    text = os.read(read, 65536) if ready else b""
    os.close(read)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    if not ready:
        return "hang", ""
    return tuple(json.loads(text)) if text else ("killed", "")


# The user's own files.


def own_arrays() -> dict[str, np.ndarray]:
    """Images with labels, booleans and numbers, of which each file is made."""
    rng = np.random.default_rng(0)
    return {
        "train_images": rng.integers(0, 256, (400, 12, 12), dtype=np.uint8),
        "train_labels": np.arange(400) % 4,
        "train_radius": np.linspace(0, 1, 400, dtype=np.float32),
        "train_round": np.arange(400) % 2 == 0,
    }


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def write_npz(path: Path, members: list[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(f"{name}.npy", content)


def flip(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def damage(content: bytes, rng: random.Random, header: int = 0) -> bytes:
    """Damages bytes as a disk, a transfer or an editor does, if need be only before `header`."""
    end = header or len(content)
    kind = rng.randrange(6)
    place = rng.randrange(end)
    if kind < 3:
        return flip(content, place, rng.randrange(8))
    if kind == 3:
        return content[: rng.randrange(len(content))]
    if kind == 4:
        return content + rng.randbytes(rng.choice([1, 8, 100, 5000]))
    length = min(rng.choice([1, 16, 512]), end - place)
    return content[:place] + bytes(length) + content[place + length :]


def mutate_npz(path: Path, rng: random.Random) -> str:
    arrays = own_arrays()
    members = [(name, npy(array)) for name, array in arrays.items()]
    kind = rng.choice(["bytes", "bytes", "longer", "shorter", "doubled", "rows", "type", "values"])
    which = rng.randrange(len(members))
    name, content = members[which]
    if kind == "values":
        values = rng.choice([np.full(400, 1e300), np.full(400, np.nan), np.linspace(0, 1, 399)])
        labels = np.array([0, 2**64 - 1], np.uint64)[np.arange(400) % 2]
        members[1:3] = [("train_labels", npy(labels)), ("train_radius", npy(values))]
    if kind == "longer":
        members[which] = name, content + rng.randbytes(rng.choice([1, 8, 144, 10000]))
    if kind == "shorter":
        members[which] = name, content[: -rng.choice([1, 4, 100])]
    if kind == "doubled":
        members.append((name, npy(np.roll(arrays[name], rng.randrange(1, 3), 0))))
    if kind == "rows":
        rows = rng.choice([b"40,", b"399,", b"-1,", b"401,"])
        members[which] = name, content.replace(b"(400,", b"(" + rows.ljust(4), 1)
    if kind == "type":
        name, content = members[0]
        members[0] = name, content.replace(b"|u1", rng.choice([b"|b1", b"|i1", b"|S1", b"|O1"]), 1)
    write_npz(path, members)
    if kind == "bytes":
        path.write_bytes(damage(path.read_bytes(), rng))
    return kind


def mutate_npy(path: Path, rng: random.Random) -> str:
    content = npy(own_arrays()["train_images"])
    kind = rng.choice(["header", "trailing", "cut", "rows", "archive", "pickle"])
    if kind == "header":
        content = flip(content, rng.randrange(64), rng.randrange(8))
    if kind == "trailing":
        content += rng.randbytes(rng.choice([1, 144, 5000]))
    if kind == "cut":
        content = content[: rng.randrange(len(content))]
    if kind == "rows":
        content = content.replace(b"(400,", rng.choice([b"(399,", b"(40, ", b"(-1, "]), 1)
    if kind == "archive":
        file = io.BytesIO()
        np.savez(file, train_images=own_arrays()["train_images"])
        content = file.getvalue()
    if kind == "pickle":
        content = npy(np.array([None] * 3, object))
    path.write_bytes(content)
    return kind


def mutate_safetensors(path: Path, rng: random.Random) -> str:
    content = save(own_arrays())
    size = int.from_bytes(content[:8], "little")
    header, pages = json.loads(content[8 : 8 + size]), content[8 + size :]
    name = rng.choice(list(header))
    entry = header[name]
    kind = rng.choice(
        ["shifted", "overlapping", "negative", "gap", "doubled key", "doubled name", "BOOL",
         "boolean bytes", "trailing", "cut", "rows", "overflow", "length", "types", "nested"]
    )  # fmt: skip
    text = None
    start, stop = entry["data_offsets"]
    if kind == "shifted":
        by = rng.choice([-8, -1, 1, 8, 144])
        entry["data_offsets"] = [max(0, start + by), stop + by]
    if kind == "overlapping":
        others = [e["data_offsets"] for n, e in header.items() if n != name]
        begin = rng.choice(others)[0]
        entry["data_offsets"] = [begin, begin + stop - start]
    if kind == "negative":
        entry["data_offsets"] = [start - len(pages), stop - len(pages)]
    if kind == "gap":
        pages += bytes(stop - start)
        entry["data_offsets"] = [len(pages) - (stop - start), len(pages)]
    if kind == "doubled name":
        other = {**entry, "data_offsets": [0, stop - start]}
        text = json.dumps(header)[:-1] + f', "{name}": {json.dumps(other)}}}'
    if kind == "doubled key":
        text = json.dumps(header).replace('"shape"', '"shape": [1], "shape"', 1)
    if kind == "BOOL":
        header["train_images"]["dtype"] = "BOOL"
    if kind == "boolean bytes":
        begin = header["train_round"]["data_offsets"][0] + rng.randrange(400)
        pages = pages[:begin] + bytes([rng.randrange(2, 256)]) + pages[begin + 1 :]
    if kind == "trailing":
        pages += rng.randbytes(rng.choice([1, 8, 4096]))
    if kind == "cut":
        pages = pages[: rng.randrange(len(pages))]
    if kind == "rows":
        entry["shape"][0] += rng.choice([-300, -1, 1, 400])
    if kind == "overflow":
        entry["shape"] = [2**32, 2**32, *entry["shape"]]
    if kind == "types":
        entry["dtype"] = rng.choice(["BF16", "F8_E4M3", "X7", 3, None])
    if kind == "nested":
        text = "[" * rng.choice([10, 100_000])
    text = (text or json.dumps(header)).encode()
    length = len(text) + (rng.choice([-1, 1, 2**40]) if kind == "length" else 0)
    path.write_bytes(length.to_bytes(8, "little") + text + pages)
    return kind


# Known sets.


def mutate_prepared(path: Path, other: Path, rng: random.Random) -> str:
    """Writes another prepared file to `path`, perhaps with the times of the right one."""
    content = path.read_bytes()
    times = path.stat()
    arrays = {name: np.array(array) for name, array in load_file(path).items()}
    images, labels = arrays["train_images"], arrays["train_labels"]
    count = len(images)
    kind = rng.choice(
        ["bytes", "pixel", "label bit", "label 77", "few", "black", "another set", "extra array",
         "order", "type", "labels rolled", "test as training", "shape"]
    )  # fmt: skip
    few = count // 20
    if kind == "few":
        arrays |= {"train_images": images[:few], "train_labels": labels[:few]}
    if kind == "black":
        images[:300] = 0
    if kind == "pixel":
        images[rng.randrange(count), 0, rng.randrange(28), rng.randrange(28)] ^= 1
    if kind == "label bit":
        labels[rng.randrange(count)] ^= 1 << rng.randrange(60)
    if kind == "label 77":
        labels[rng.randrange(count)] = 77
    if kind == "extra array":
        arrays["val_images"], arrays["val_labels"] = images[:50], labels[:50]
    if kind == "order":
        arrays |= {"train_images": images[::-1].copy(), "train_labels": labels[::-1].copy()}
    if kind == "type":
        arrays["train_labels"] = labels.astype(np.int32)
    if kind == "labels rolled":
        arrays["train_labels"] = np.roll(labels, 1)
    if kind == "test as training":
        arrays = {
            name: arrays.get(name.replace("train", "test"), a[:1000]) for name, a in arrays.items()
        }
    if kind == "shape":
        arrays["train_images"] = images.reshape(count, 1, 14, 56)
    made = damage(content, rng) if kind == "bytes" else save(arrays)
    path.write_bytes(other.read_bytes() if kind == "another set" else made)
    if rng.random() < 0.5:
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    return kind


def mutate_raw(folder: Path, another: Path, rng: random.Random) -> str:
    """Replaces a file of a folder of links to MNIST's raw files by a mutated one."""
    name = rng.choice(RAW)
    path = folder / name
    content = path.read_bytes()
    twin = RAW[(RAW.index(name) + 2) % 4]  # test for training
    kind = rng.choice(["twin", "bytes", "another set", "cut", "trailing", "rows", "folder", "pipe",
                       "empty", "kind", "label", "pixel"])  # fmt: skip
    path.unlink()
    if kind == "folder":
        path.mkdir()
        return kind
    if kind == "pipe":
        os.mkfifo(path)
        return kind
    made = {
        "twin": lambda: (folder / twin).read_bytes(),
        "bytes": lambda: damage(content, rng),
        "another set": lambda: (another / name).read_bytes(),
        "cut": lambda: content[: rng.randrange(len(content))],
        "trailing": lambda: content + b"0" * rng.choice([1, 784]),
        "rows": lambda: content[:4] + struct.pack(">I", rng.choice([3000, 2**31])) + content[8:],
        "empty": lambda: b"",
        "kind": lambda: flip(content, rng.randrange(4), rng.randrange(8)),
        "label": lambda: content[:1000] + bytes([77]) + content[1001:],
        "pixel": lambda: flip(content, rng.randrange(1000, len(content)), 0),
    }
    path.write_bytes(made[kind]())
    return kind


def sprites(folder: Path) -> DSprites:
    """Returns a source of a small file in the layout of dSprites."""
    DSprites.factors = sprite_factors(2, 3, 2)
    return DSprites(str(folder / "small.npz"))


def write_sprites(folder: Path) -> None:
    factors = sprite_factors(2, 3, 2)
    classes = factors.values_at(torch.arange(factors.num_images)).numpy()
    images = np.random.default_rng(0).integers(0, 2, (len(classes), 64, 64), dtype=np.uint8)
    np.savez_compressed(
        folder / "small.npz", imgs=images, latents_classes=np.pad(classes, ((0, 0), (1, 0)))
    )


def mutate_sprites(folder: Path, rng: random.Random) -> str:
    """Damages the original of the small dSprites, or its packed bits."""
    kind = rng.choice(["original", "packed"])
    path = folder / ("small.npz" if kind == "original" else "small.bits.safetensors")
    if kind == "original":
        (folder / "small.bits.safetensors").unlink()
    path.write_bytes(damage(path.read_bytes(), rng))
    return kind


def make_special(path: Path, rng: random.Random) -> str:
    kind = rng.choice(["pipe", "device", "folder", "socket", "stdin", "kernel", "missing", "empty"])
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    elif kind == "empty":
        path.write_bytes(b"")
    else:
        targets = {"device": "/dev/zero", "stdin": "/dev/stdin", "kernel": "/proc/kmsg"}
        path.symlink_to(targets.get(kind, "nowhere"))
    return kind


def main(data: Path, count: int) -> None:
    """Runs `count` mutations and prints what became of them; exits with 1 if any was not seen."""
    warnings.filterwarnings("ignore", "Duplicate name")  # of archives that are made so
    os.environ["HTTPS_PROXY"] = os.environ["HTTP_PROXY"] = "http://127.0.0.1:9"  # no downloads
    work = Path(tempfile.mkdtemp())
    shares = {".npz": 0.25, ".npy": 0.08, ".safetensors": 0.25, "mnist": 0.04, "mnist_5k": 0.15,
              "raw files": 0.12, "dsprites": 0.06, "no files": 0.05}  # fmt: skip
    rows, bad = [], []
    total: Counter[str] = Counter()
    for family, share in shares.items():
        found: Counter[str] = Counter()
        for seed in range(round(count * share)):
            folder = work / "one"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            kind, said, text = run_one(family, data, folder, random.Random(f"{family} {seed}"))
            found[said] += 1
            if said not in ("refused", "same data"):
                bad.append(f"{said}: {family} {seed}, {kind}: {text[:200]}")
        rows.append([family, *(str(found[key]) for key in COLUMNS), str(found.total())])
        total += found
    rows.append(["all", *(str(total[key]) for key in COLUMNS), str(total.total())])
    show("Mutated files", ["", *COLUMNS, "files"], rows, "\n".join(bad), as_markdown=True)
    shutil.rmtree(work)
    sys.exit(bool(bad))


COLUMNS = ("refused", "same data", "OTHER DATA", "traceback", "hang")


def run_one(family: str, data: Path, folder: Path, rng: random.Random) -> tuple[str, str, str]:
    """Makes a mutated file and loads it; returns its kind, what happened and the message."""
    if family.startswith(".") or family == "no files":
        suffix = rng.choice([".npz", ".npy", ".safetensors"]) if family == "no files" else family
        path = folder / f"own{suffix}"
        arrays = own_arrays()
        if suffix == ".npz":
            write_npz(path, [(name, npy(array)) for name, array in arrays.items()])
        elif suffix == ".npy":
            path.write_bytes(npy(arrays["train_images"]))
        else:
            path.write_bytes(save(arrays))
        make = partial(Arrays, str(path))
        right = outcome(make)
        path.unlink()
        mutate = {".npz": mutate_npz, ".npy": mutate_npy, ".safetensors": mutate_safetensors}
        kind = (make_special if family == "no files" else mutate[suffix])(path, rng)
    elif family == "dsprites":
        write_sprites(folder)
        make = partial(sprites, folder)
        right = outcome(make)
        kind = mutate_sprites(folder, rng)
    elif family == "raw files":
        raw = folder / "MNIST" / "raw"
        raw.mkdir(parents=True)
        for name in RAW:
            (raw / name).symlink_to(data / "MNIST" / "raw" / name)
        make = partial(TorchvisionDataset, "MNIST", str(folder), "mnist.safetensors", "files")
        right = ("loaded", RIGHT["mnist"])
        kind = mutate_raw(raw, data / "FashionMNIST" / "raw", rng)
    else:
        path = folder / f"{family}.safetensors"
        shutil.copyfile(data / path.name, path)
        make = partial(TorchvisionDataset, "MNIST", str(folder), path.name, "files")
        if family == "mnist_5k":
            make = partial(Digits, str(folder))
        if family not in RIGHT or rng.random() < 0.5:  # else there is no note of a first start
            RIGHT[family] = outcome(make)[1]
        right = ("loaded", RIGHT[family])
        other = data / ("mnist.safetensors" if family == "mnist_5k" else "mnist_5k.safetensors")
        kind = mutate_prepared(path, other, rng)
    assert right[0] == "loaded", right
    said, text = outcome(make)
    if said == "loaded":
        return kind, "same data" if text == right[1] else "OTHER DATA", ""
    return kind, said, text


RIGHT: dict[str, str] = {}
"""Digest of each known set, computed once."""

if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 300)
