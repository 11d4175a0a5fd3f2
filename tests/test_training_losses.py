"""The loss on target tokens: plain likelihood for words, near misses cost little for coordinates."""

import pytest
import torch
from torch.nn import functional as F

from sdg.training.losses import soft_targets, target_loss

NUMBERS = torch.arange(5, 1006)


def case(seed=0, vocabulary=1100):
    torch.manual_seed(seed)
    logits = torch.randn(2, 8, vocabulary)
    labels = torch.randint(0, vocabulary, (2, 8))
    labels[:, :3] = -100
    labels[1, 7:] = -100
    return logits, labels


def test_without_coordinates_it_is_the_likelihood_of_the_next_token():
    logits, labels = case()
    got = target_loss(logits, labels)
    assert float(got["loss"]) == pytest.approx(
        float(F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()))
    )
    assert float(got["weight"]) == 5 + 4


def test_agrees_with_a_slow_version():
    logits, labels = case(1)
    coordinates = torch.full_like(labels, -1)
    for row, column, value in ((0, 4, 0), (0, 5, 400), (1, 6, 1000)):
        coordinates[row, column], labels[row, column] = value, NUMBERS[value]
    total = weight = 0.0
    for row in range(2):
        for column in range(1, 8):
            if labels[row, column] < 0:
                continue
            log_p = logits[row, column - 1].log_softmax(0)
            value = int(coordinates[row, column])
            if value < 0:
                total, weight = total - float(log_p[labels[row, column]]), weight + 1
            else:
                near = torch.exp(-((torch.arange(1001) - value) ** 2) / (2 * 7.0**2))
                total -= 3 * float((near / near.sum() * log_p[NUMBERS]).sum())
                weight += 3
    got = target_loss(logits, labels, coordinates, NUMBERS, soft_targets(7.0), coordinate_weight=3.0)
    assert float(got["loss"]) == pytest.approx(total / weight, rel=1e-5)
    assert float(got["weight"]) == weight


def test_near_misses_cost_less_than_far_ones_and_other_words_most():
    labels, coordinates = torch.tensor([[-100, int(NUMBERS[500])]]), torch.tensor([[-1, 500]])

    def cost(token):
        logits = torch.zeros(1, 2, 1100)
        logits[0, 0, token] = 8.0
        return float(target_loss(logits, labels, coordinates, NUMBERS, soft_targets(10.0))["loss"])

    costs = [cost(NUMBERS[500]), cost(NUMBERS[510]), cost(NUMBERS[530]), cost(NUMBERS[600])]
    assert costs == sorted(costs)
    assert cost(0) >= costs[-1]


@pytest.mark.parametrize("sigma", [1e-3, 1.0, 10.0, 500.0])
def test_soft_targets_are_distributions_round_their_number(sigma):
    rows = soft_targets(sigma)
    torch.testing.assert_close(rows.sum(1), torch.ones(1001))
    assert torch.equal(rows.argmax(1), torch.arange(1001))


def test_a_batch_without_targets_costs_nothing():
    logits, labels = case()
    got = target_loss(logits.requires_grad_(), torch.full_like(labels, -100))
    got["loss"].backward()
    assert float(got["loss"]) == 0


def test_coordinates_without_soft_targets_are_refused():
    logits, labels = case()
    with pytest.raises(ValueError, match="numbers and targets"):
        target_loss(logits, labels, torch.ones_like(labels))
