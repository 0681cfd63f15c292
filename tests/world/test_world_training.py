"""Batches of texts of one length: every example once a round, little padding, never twice alike."""

import torch

from workflow_scripts.world.training import alike, training

LENGTHS = [int(x) for x in torch.randint(5, 120, (403,), generator=torch.manual_seed(1))]
BATCH = 16


def padding(batches):
    """Share of places that hold no token."""
    places = sum(len(one) * max(LENGTHS[int(i)] for i in one) for one in batches)
    return 1 - sum(LENGTHS[int(i)] for one in batches for i in one) / places


def test_batches_of_one_length_hold_every_example_once_with_little_padding():
    torch.manual_seed(3)
    first, second = alike(LENGTHS, BATCH), alike(LENGTHS, BATCH)
    for order in (first, second):
        assert sorted(order.tolist()) == list(range(len(LENGTHS)))
    assert padding(first.split(BATCH)) < 0.3 * padding(torch.randperm(403).split(BATCH))
    rounds = [{frozenset(one.tolist()) for one in order.split(BATCH)} for order in (first, second)]
    assert not rounds[0] & rounds[1]
    # Short and long ones take turns: their order follows no length.
    means = [sum(LENGTHS[int(i)] for i in one) / len(one) for one in first.split(BATCH)[:-1]]
    assert means not in (sorted(means), sorted(means, reverse=True))


def test_a_training_of_texts_shows_each_once_a_round():
    network = torch.nn.Linear(1, 1)
    steps = -(-len(LENGTHS) // BATCH)
    shown = []
    for batch in training([network], 2 * steps, 1.0, len(LENGTHS), 0.1, BATCH, LENGTHS):
        network(torch.ones(1)).sum().backward()
        shown.append(batch)
    for part in (shown[:steps], shown[steps:]):
        assert sorted(torch.cat(part).tolist()) == list(range(len(LENGTHS)))
