"""`Board`: the epochs after which TensorBoard gets pictures, and their number."""

import math

import pytest

from vaelab.pictures.tensorboard import Board


def epochs_with_pictures(validated, every=None, board=None):
    """Returns the epochs, of those that are validated, after which a set is due."""
    board = board or Board(every, 1)
    found = []
    for epoch in validated:
        if board.is_due(epoch):
            board.last_epoch = epoch
            found.append(epoch)
    return found


def test_pictures_are_thinned_out_by_powers_of_two():
    assert epochs_with_pictures(range(1, 101)) == [1, 2, 4, 8, 16, 32, 64]
    for epochs in (1, 2, 3, 1000, 3000, 4096):
        assert len(epochs_with_pictures(range(1, epochs + 1))) <= math.log2(epochs) + 1


@pytest.mark.parametrize("every", [1, 2, 10])
def test_pictures_every_n_epochs(every):
    assert epochs_with_pictures(range(1, 31), every) == list(range(1, 31, every))


def test_pictures_come_at_the_next_validation_if_not_every_epoch_has_one():
    assert epochs_with_pictures(range(3, 40, 3)) == [3, 6, 9, 18, 33]
    assert epochs_with_pictures(range(3, 40, 3), 10) == [3, 12, 21, 33]


@pytest.mark.parametrize("every", [None, 3])
def test_resumed_run_has_pictures_after_the_same_epochs(every):
    whole = epochs_with_pictures(range(1, 31), every)
    for stop in range(1, 30):
        first, second = Board(every, 1), Board(every, 1)
        before = epochs_with_pictures(range(1, stop + 1), board=first)
        second.load_state_dict(first.state_dict())
        assert before + epochs_with_pictures(range(stop + 1, 31), board=second) == whole
