import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from vaelab.acceleration import optimizers

PAIRS = [(optimizers.Adam, torch.optim.Adam), (optimizers.AdamW, torch.optim.AdamW)]


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3))


def train(model, optimizer, steps, first=0):
    """Steps in some of which a part of the parameters has no gradient."""
    for step in range(first, first + steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        half = model[:2] if step % 5 == 3 else model
        half(torch.randn(4, 5)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("ours", "theirs"), PAIRS)
def test_the_same_bits(ours, theirs, fused):
    found = {}
    for kind in (ours, theirs):
        model = network()
        groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.1}]
        optimizer = kind(groups, lr=0.02, weight_decay=0.3, fused=fused)
        train(model, optimizer, 8)
        optimizer.param_groups[0]["lr"] = 0.5
        train(model, optimizer, 8, first=8)
        found[kind] = model.state_dict(), optimizer.state_dict()
    assert_close(found[ours], found[theirs], rtol=0, atol=0)


def test_the_defaults_are_theirs():
    for ours, theirs in PAIRS:
        defaults = [kind(network().parameters()).defaults for kind in (ours, theirs)]
        assert defaults[0] == defaults[1]


def test_a_group_may_be_empty():
    model = network()
    groups = [{"params": []}, {"params": model.parameters()}]
    train(model, optimizers.Adam(groups, fused=True), 3)


def test_lists_are_made_once(monkeypatch):
    made = []
    usual = torch.optim.Adam._init_group
    monkeypatch.setattr(torch.optim.Adam, "_init_group", lambda *a: made.append(1) or usual(*a))
    model = network()
    optimizer = optimizers.Adam(model.parameters(), fused=True)
    train(model, optimizer, 3)
    assert len(made) == 1
    train(model, optimizer, 1, first=3)  # one without all gradients
    train(model, optimizer, 1, first=4)
    assert len(made) == 2


def test_a_loaded_state_is_used():
    model, twin = network(), network()
    optimizer, fresh = (optimizers.Adam(m.parameters(), lr=0.1) for m in (model, twin))
    train(model, optimizer, 3)
    train(twin, fresh, 1, first=50)  # so that it has lists of another state
    twin.load_state_dict(model.state_dict())
    fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(model, optimizer, 3, first=5)
    train(twin, fresh, 3, first=5)
    assert_close(twin.state_dict(), model.state_dict(), rtol=0, atol=0)
