"""The batch loader, against numbered images: order, noise, shares of processes, and resuming."""

import pytest
import torch
from support.numbered_images import flatten, image_numbers, numbered_images

from vaelab.data.batches import Batches


def build_batches(count=10, **changes):
    """Returns a loader of images [count, 1, 2, 2] whose first pixel is their number.

    Labels are one-hot, number % 3.
    """
    settings = {"pixels": "grey", "batch_size": 4, "seed": 0, "shuffle": True} | changes
    images = numbered_images(count, (1, 2, 2))
    labels = torch.eye(3)[torch.arange(count) % 3]
    return Batches(images, labels, torch.arange(count), **settings)


@pytest.fixture(params=[1, 2, 1000])
def noise_block_size(request, monkeypatch):
    """Sets how many pixels get their noise in one draw: those of 1, 2 or 1000 default batches."""
    monkeypatch.setattr("vaelab.data.batches.DRAWN", request.param * 16)


def test_order_is_a_function_of_seed_and_epoch():
    loader, again = build_batches(), build_batches()
    seen = []
    for epoch in range(4):
        loader.set_epoch(epoch)
        seen.append(image_numbers(loader))
    for epoch in reversed(range(4)):
        again.set_epoch(epoch)
        assert image_numbers(again) == seen[epoch]
        assert image_numbers(again) == seen[epoch]
    assert len({str(order) for order in seen}) == 4
    assert image_numbers(build_batches(seed=1)) != seen[0]


@pytest.mark.usefixtures("noise_block_size")
def test_noise_is_a_function_of_seed_epoch_and_batch():
    loader = build_batches(count=8, pixels="dequantized", batch_size=2)
    loader.images.fill_(7)  # equal images, so that only noise can differ
    first = torch.stack([x for x, _ in loader])
    assert torch.equal(torch.stack([x for x, _ in loader]), first)
    assert len(first.flatten(1).unique(dim=0)) == len(first)
    loader.set_epoch(1)
    assert not torch.equal(torch.stack([x for x, _ in loader]), first)
    loader.set_epoch(0)
    loader.seed = 1
    assert not torch.equal(torch.stack([x for x, _ in loader]), first)


def test_set_epoch_after_iter_takes_effect():
    loader, other = build_batches(), build_batches()
    other.set_epoch(3)
    iterator = iter(loader)
    loader.set_epoch(3)
    assert image_numbers(iterator) == image_numbers(other)


@pytest.mark.usefixtures("noise_block_size")
def test_every_epoch_has_each_image_once():
    loader = build_batches(count=12)
    orders = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        orders.append(flatten(image_numbers(loader)))
        assert sorted(orders[-1]) == list(range(12))


@pytest.mark.usefixtures("noise_block_size")
def test_incomplete_last_batch_is_dropped_only_with_shuffle():
    assert len(build_batches(shuffle=True)) == 2
    assert [len(part) for part in image_numbers(build_batches(shuffle=True))] == [4, 4]
    assert len(set(flatten(image_numbers(build_batches(shuffle=True))))) == 8
    assert len(build_batches(shuffle=False)) == 3
    assert image_numbers(build_batches(shuffle=False)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert len(build_batches(count=8, shuffle=False)) == 2


def test_drop_last_images_differ_between_epochs():
    loader, left_out = build_batches(), set()
    for epoch in range(30):
        loader.set_epoch(epoch)
        left_out |= set(range(10)) - set(flatten(image_numbers(loader)))
    assert left_out == set(range(10))


def test_rows_select_the_images():
    loader = Batches(
        numbered_images(10),
        torch.eye(10),
        torch.tensor([7, 2, 5]),
        pixels="grey",
        batch_size=2,
        seed=0,
        shuffle=False,
    )
    assert image_numbers(loader) == [[7, 2], [5]]
    loader.shuffle, loader.batch_size = True, 3
    assert sorted(flatten(image_numbers(loader))) == [2, 5, 7]


@pytest.mark.usefixtures("noise_block_size")
@pytest.mark.parametrize("shuffle", [True, False])
def test_labels_match_their_images(shuffle):
    for x, y in build_batches(shuffle=shuffle):
        assert x.shape[1:] == (1, 2, 2)
        assert y.dtype == torch.float32
        assert y.sum(1).eq(1).all()
        assert (y.argmax(1) == (x[:, 0, 0, 0] * 255).round() % 3).all()


@pytest.mark.usefixtures("noise_block_size")
@pytest.mark.parametrize("pixels", ["binary", "dequantized", "grey"])
@pytest.mark.parametrize("count", [10, 12])
def test_training_batch_shares_concatenate_to_single_process_batch(count, pixels):
    settings = {"count": count, "shuffle": True, "pixels": pixels}
    torch.manual_seed(0)
    alone = build_batches(**settings)
    shares = []
    for rank in (0, 1):
        torch.manual_seed(0)  # the same images
        shares.append(build_batches(**settings, rank=rank, world_size=2))
    for loader in (alone, *shares):
        loader.set_epoch(2)
    assert len(alone) == len(shares[0]) == len(shares[1])
    for whole, *parts in zip(alone, *shares, strict=True):
        for i in (0, 1):  # x and y
            assert torch.equal(torch.cat([part[i] for part in parts]), whole[i])


@pytest.mark.usefixtures("noise_block_size")
@pytest.mark.parametrize("pixels", ["binary", "dequantized", "grey"])
@pytest.mark.parametrize("world_size", [2, 3, 5])
@pytest.mark.parametrize("count", [1, 4, 9, 12, 17])
def test_evaluation_batches_alternate_between_processes(count, world_size, pixels):
    settings = {"count": count, "shuffle": False, "pixels": pixels}

    def loader(**share):
        torch.manual_seed(0)  # the same images
        return build_batches(**settings, **share)

    alone = list(loader())
    shares = [[*loader(rank=rank, world_size=world_size)] for rank in range(world_size)]
    assert {len(share) for share in shares} == {-(-len(alone) // world_size)}
    assert {len(loader(rank=rank, world_size=world_size)) for rank in range(world_size)} == {
        len(shares[0])
    }
    in_turn = [batch for each in zip(*shares, strict=True) for batch in each]
    for (x, y), (x_alone, y_alone) in zip(in_turn, alone, strict=False):
        assert torch.equal(x, x_alone)
        assert torch.equal(y, y_alone)
    for x, y in in_turn[len(alone) :]:
        assert x.shape == (0, 1, 2, 2)
        assert y.shape == (0, 3)


def test_resumed_evaluation_yields_remaining_batches_of_its_process():
    share = {"count": 20, "shuffle": False, "rank": 1, "world_size": 2}
    whole = image_numbers(build_batches(**share))
    assert whole == [[4, 5, 6, 7], [12, 13, 14, 15], []]
    for position in range(4):
        loader = build_batches(**share)
        loader.load_state_dict({"position": position})
        assert image_numbers(loader) == whole[position % 3 :]  # a finished one begins anew
        assert image_numbers(loader) == whole


@pytest.mark.usefixtures("noise_block_size")
@pytest.mark.parametrize("shuffle", [True, False])
def test_resumed_epoch_yields_exactly_the_remaining_batches(shuffle):
    settings = {"count": 20, "pixels": "dequantized", "shuffle": shuffle}
    torch.manual_seed(0)
    loader = build_batches(**settings)
    loader.set_epoch(1)
    whole = list(loader)
    for position in range(len(loader) + 1):
        torch.manual_seed(0)
        resumed = build_batches(**settings)
        resumed.load_state_dict({"position": position})
        resumed.set_epoch(1)
        rest = list(resumed)
        left = whole[position % len(whole) :]  # a finished epoch begins anew
        for (x, y), (x_rest, y_rest) in zip(left, rest, strict=True):
            assert torch.equal(x, x_rest)
            assert torch.equal(y, y_rest)
        assert len(list(resumed)) == len(whole)  # the next epoch is whole


@pytest.mark.usefixtures("noise_block_size")
def test_state_dict_counts_yielded_batches():
    loader = build_batches(count=12)
    iterator = iter(loader)
    states = [loader.state_dict()]
    for _ in iterator:
        states.append(loader.state_dict())  # noqa: PERF401
    assert states == [{"position": n} for n in range(4)]
    assert loader.state_dict() == {"position": 0}


@pytest.mark.usefixtures("noise_block_size")
def test_abandoned_epoch_does_not_affect_the_next():
    loader = build_batches(count=12)
    whole = image_numbers(loader)
    next(iter(loader))
    assert image_numbers(loader) == whole
    loader.load_state_dict({"position": 1})
    next(iter(loader))
    assert image_numbers(loader) == whole
