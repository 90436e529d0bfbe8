"""`gather_batch` in two processes against one process with the whole batch."""

import pytest
import torch
from torch import distributed, multiprocessing
from torch.testing import assert_close

from vaelab.distributed import gather_batch

BATCH = torch.arange(12.0).view(4, 3).sin()


def squared_covariance(codes):
    """Returns a loss [] that is no mean over codes [B, D]: the squared norm of their covariance."""
    centred = codes - codes.mean(0)
    return (centred.T @ centred / len(codes)).square().sum()


def run_process(rank, folder):
    """Runs one of two processes as under DDP, and saves its results in `folder`.

    It has half of the batch. The gradient is averaged over processes.
    """
    place = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=2)
    weight = torch.ones(3, requires_grad=True)
    share = BATCH[2 * rank : 2 * rank + 2] * weight
    loss = squared_covariance(gather_batch(share))
    loss.backward()
    distributed.all_reduce(weight.grad)
    samples = gather_batch(torch.stack([share, 2 * share]), dim=1)
    with torch.no_grad():
        alone = gather_batch(share)
    found = {"loss": loss, "gradient": weight.grad / 2, "samples": samples, "alone": alone}
    torch.save({name: value.detach() for name, value in found.items()}, f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.mark.slow
def test_gather_batch_in_two_processes_matches_one_process(tmp_path):
    multiprocessing.spawn(run_process, (tmp_path,), nprocs=2)
    weight = torch.ones(3, requires_grad=True)
    loss = squared_covariance(gather_batch(BATCH * weight))
    loss.backward()
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert_close(found["loss"], loss.detach())
        assert_close(found["gradient"], weight.grad)
        assert_close(found["samples"], torch.stack([BATCH, 2 * BATCH]))
        assert_close(found["alone"], BATCH[2 * rank : 2 * rank + 2])
