"""One optimizer of two halves: who trains what, and that a restart goes on exactly."""

import copy

import pytest
import torch
from torch import nn

from sdg.training import optim
from sdg.training.optim import Muon, MuonWithAdamW, orthogonal


def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(6, 10, bias=False))
    tied = nn.Linear(8, 10, bias=False)
    tied.weight = net[0].weight
    return net, tied


def step(optimizer, net, seed):
    torch.manual_seed(seed)
    net(torch.randint(0, 10, (4,))).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_matrices_go_to_muon_and_the_rest_to_adamw():
    net, tied = model()
    muon, adamw = MuonWithAdamW([net, tied], lr=0.1, weight_decay=0.2).parts
    assert [p.shape for g in muon.param_groups for p in g["params"]] == [(6, 8), (10, 6)]
    assert [[tuple(p.shape) for p in g["params"]] for g in adamw.param_groups] == [[(10, 8)], [(6,), (6,), (6,)]]
    assert [g["weight_decay"] for g in adamw.param_groups] == [0.2, 0.0]


def test_frozen_parameters_stay_out():
    net, _ = model()
    net[1].requires_grad_(False)
    frozen = {id(p) for p in net[1].parameters()}
    groups = MuonWithAdamW([net], lr=0.1).param_groups
    assert not frozen & {id(p) for g in groups for p in g["params"]}


def test_a_scheduler_sets_the_rate_of_both_halves():
    net, _ = model()
    optimizer = MuonWithAdamW([net], lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    step(optimizer, net, 0)
    scheduler.step()
    assert {g["lr"] for part in optimizer.parts for g in part.param_groups} == {0.05}


def test_a_restart_goes_on_exactly():
    net, _ = model()
    optimizer = MuonWithAdamW([net], lr=0.1, weight_decay=0.1)
    step(optimizer, net, 0)
    again = copy.deepcopy(net)
    resumed = MuonWithAdamW([again], lr=0.7)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for seed in (1, 2):
        step(optimizer, net, seed)
        step(resumed, again, seed)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))
    assert resumed.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_muon_steps_as_torchs_own(dtype, monkeypatch):
    monkeypatch.setattr(optim, "cpu_dtype", lambda: dtype)
    torch.manual_seed(0)
    shapes = [(6, 10), (12, 4), (6, 10), (8, 8), (1, 5)]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = copy.deepcopy(ours)
    pair = (
        (ours, Muon(ours, lr=0.1, weight_decay=0.2)),
        (theirs, torch.optim.Muon(theirs, lr=0.1, weight_decay=0.2, adjust_lr_fn="match_rms_adamw")),
    )
    for _ in range(3):
        gradients = [torch.randn(shape) for shape in shapes]
        for parameters, optimizer in pair:
            for p, gradient in zip(parameters, gradients, strict=True):
                p.grad = gradient.clone()
            parameters[3].grad = None
            optimizer.step()
    for mine, other, shape in zip(ours, theirs, shapes, strict=True):
        torch.testing.assert_close(mine, other, atol=0.02, rtol=0, msg=str(shape))
    assert not ours[0].isnan().any()


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_singular_values_come_close_to_one(shape):
    torch.manual_seed(0)
    made = torch.linalg.svdvals(orthogonal(torch.randn(2, *shape) * 100).float())
    assert ((made > 0.5) & (made < 1.3)).all()


def test_no_gradient_is_no_update():
    assert orthogonal(torch.zeros(1, 3, 3)).count_nonzero() == 0
