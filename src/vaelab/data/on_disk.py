"""Images in a large file, which are read as they are needed, also ahead in a thread."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from vaelab.data.pixels import RepeatedNoise
from vaelab.data.splits import OnDemand
from vaelab.errors import UserError
from vaelab.randomness import seeded_generator

BLOCK = 2**20  # bytes, about, of images that are read from one place in a shuffle by blocks
LARGE = 2**29  # bytes; a smaller file is mapped into memory
NEAR = 2**16  # bytes; a shorter gap between two images is read too, which is faster than a seek
READ = 2**24  # bytes that one call reads, at most
BUFFERS = 1000  # buffers that one call fills, at most; systems allow 1,024


class FixedBits:
    """Random bits of a part's images, the same as if the part were in memory, see `binarize`.

    Args:
        purpose: Of the stream of random numbers.
        seed: Of the stream.
        rows: Indices [n] of the part's images in the file, in its order.
        lengths: N of the file, C, H, W.
    """

    def __init__(self, purpose: str, seed: int, rows: Tensor, lengths: tuple[int, ...]) -> None:
        self.purpose, self.seed, self.rows = purpose, seed, rows
        self.count, *shape = lengths
        self.size = int(np.prod(shape))

    @cached_property
    def noise(self) -> RepeatedNoise:
        """The noise of all images of the part, in its order."""
        return RepeatedNoise(len(self.rows) * self.size, seeded_generator(self.purpose, self.seed))

    @cached_property
    def places(self) -> Tensor:
        """The place [N] of each image of the file in the part; -1 of images of other parts."""
        found = torch.full((self.count,), -1)
        found[self.rows] = torch.arange(len(self.rows))
        return found

    def draw(self, images: Tensor, rows: Tensor) -> None:
        """Makes images uint8 [n, C, H, W] of the part 0 or 255, in place, by their rows [n]."""
        places = self.places[rows]
        for i in places.argsort().tolist():
            start = int(places[i]) * self.size
            noise = self.noise.between(start, start + self.size).view(images[i].shape)
            images[i] = noise.lt(images[i]).to(torch.uint8) * 255


class OnDisk(OnDemand):
    """Images uint8 [N, C, H, W] in a file, read on indexing.

    The pages of a mapped file count as memory of the process until the system needs them. Plain
    reads leave them to the system's cache.

    Args:
        path: The file.
        offset: Bytes before the first image.
        shape: N, C, H, W.
    """

    def __init__(self, path: Path, offset: int, shape: tuple[int, ...]) -> None:
        self.path, self.offset = path, offset
        count, channels, height, width = shape
        self.lengths = count, channels, height, width
        self.chosen_device = torch.device("cpu")
        self.fixed_bits: FixedBits | None = None
        with path.open("rb") as file:
            self.version = file_version(file.fileno())

    @classmethod
    def of_mapped(cls, images: np.memmap) -> Self:
        """Returns the images of an array [N, C, H, W] in a mapped file, or a part of one."""
        whole: np.ndarray = images
        while isinstance(whole.base, np.ndarray):
            whole = whole.base
        before = images.ctypes.data - whole.ctypes.data
        return cls(Path(str(images.filename)), int(images.offset or 0) + before, images.shape)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.lengths

    @property
    def device(self) -> torch.device:
        return self.chosen_device

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return int(np.prod(self.shape[1:]))

    @property
    def nbytes(self) -> int:
        """Bytes of all images."""
        return len(self) * self.image_bytes

    def to(self, device: torch.device | str) -> Self:
        """Returns a copy that yields images on a device."""
        moved = copy(self)
        moved.chosen_device = torch.device(device)
        return moved

    def with_fixed_bits(self, purpose: str, seed: int, rows: Tensor) -> Self:
        """Returns a copy that yields 0 or 255, a random bit of each pixel, always the same.

        They are the bits that `binarize` draws of the images `rows` together. Only these images may
        be read.
        """
        binary = copy(self)
        binary.fixed_bits = FixedBits(purpose, seed, rows, self.shape)
        return binary

    def map_all(self) -> Tensor:
        """Returns all images, mapped into memory; a system may drop and read them as it likes."""
        return torch.from_numpy(np.memmap(self.path, np.uint8, "c", self.offset, self.shape))

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Returns images uint8 [n, C, H, W] by indices [n]; raises UserError if the file changed.

        Waits for the device if the indices are on one.
        """
        return self.read(rows.cpu()).to(self.device)

    def read(self, rows: Tensor) -> Tensor:
        """Returns images uint8 [n, C, H, W] by indices [n], both on the CPU, pinned for CUDA.

        Reads in the order of the file. Images that follow each other are read at once, with others
        between them if these are few.

        Raises:
            UserError: If the file cannot be read, or has changed since it was opened.
        """
        images = torch.empty(len(rows), *self.shape[1:], dtype=torch.uint8)
        try:
            with self.path.open("rb", buffering=0) as file:
                if file_version(file.fileno()) != self.version:
                    raise UserError(f"{self.path}: has changed while it was in use")
                self.read_into(images, rows.numpy(), file.fileno())
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror or error})") from error
        if self.fixed_bits is not None:
            self.fixed_bits.draw(images, rows)
        if self.device.type != "cuda":
            return images
        with torch.cuda.device(self.device):  # a new thread is on the first device
            return images.pin_memory()

    def read_into(self, images: Tensor, rows: np.ndarray, file: int) -> None:
        """Reads images by indices [n] into a tensor, in place, from an open file."""
        size = self.image_bytes
        places = images.view(-1).numpy().data
        unused = memoryview(bytearray(NEAR))
        order = np.argsort(rows, kind="stable")
        gaps = np.diff(rows[order]) - 1  # images between an image and the next; -1 for the same
        apart = np.flatnonzero((gaps < 0) | (gaps * size > NEAR)) + 1
        most = max(1, min(BUFFERS // 2, READ // size))
        for run in np.split(order, apart) if len(order) else ():
            for some in np.split(run, range(most, len(run), most)):
                buffers: deque[memoryview] = deque()
                first = following = int(rows[some[0]])
                for place, row in zip(some.tolist(), rows[some].tolist(), strict=True):
                    if row > following:
                        buffers.append(unused[: (row - following) * size])
                    buffers.append(places[place * size : (place + 1) * size])
                    following = row + 1
                fill(buffers, file, self.offset + first * size)


def fill(buffers: deque[memoryview], file: int, offset: int) -> None:
    """Reads an open file from `offset` on into buffers, which it removes; OSError at its end."""
    while buffers:
        count = os.preadv(file, buffers, offset)
        if not count:
            raise OSError("it ends too early")
        offset += count
        while buffers and count >= len(buffers[0]):
            count -= len(buffers.popleft())
        if count:  # some file systems read less than was asked
            buffers[0] = buffers[0][count:]


def file_version(file: int) -> tuple[int, int, int]:
    """Returns inode, size and time of change of an open file, one of which a change changes."""
    status = os.fstat(file)
    return status.st_ino, status.st_size, status.st_mtime_ns


def read_ahead(
    read: Callable[[Tensor], Tensor], windows: Iterable[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields each window's rows and `read(rows)`, and meanwhile reads the next one in a thread."""
    with ThreadPoolExecutor(1, "read_ahead") as reader:
        ahead = None
        for rows in windows:
            following = rows, reader.submit(read, rows)
            if ahead is not None:
                yield ahead[0], ahead[1].result()
            ahead = following
        if ahead is not None:
            yield ahead[0], ahead[1].result()


def block_order(rows: Tensor, block: int, window: int, generator: torch.Generator) -> Tensor:
    """Returns rows in a random order in which each window of them is in few places of the file.

    Blocks of consecutive rows are put in random order, and then the rows of each window.

    Args:
        rows: Indices [n] in the order of the file.
        block: Rows in a block; the last may have fewer.
        window: Rows in a window; the last may have fewer.
        generator: Of the CPU.
    """
    blocks = rows.split(block)
    drawn = torch.randperm(len(blocks), generator=generator).tolist()
    order = torch.cat([blocks[i] for i in drawn])
    windows = order.split(window)
    return torch.cat([some[torch.randperm(len(some), generator=generator)] for some in windows])
