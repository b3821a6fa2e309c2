"""One optimizer step: Adam, its rate at any step, and the update itself."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from reid import dist
from reid.recipes.contract import OptimConfig


def make_optimizer(student: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Return Adam over the parameters that want gradients."""
    parameters = [p for p in dist.unwrap(student).parameters() if p.requires_grad]
    return torch.optim.Adam(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def learning_rate(config: OptimConfig, step: int, steps_per_round: int, num_rounds: int) -> float:
    """Return the rate of a step: linear warm-up from a hundredth, milestones, cosine to zero.

    NOTE: released code warms up once a round; here the ramp is continuous in the step.
    """
    rounds = step / steps_per_round
    if rounds < config.warmup_rounds:
        return config.lr * (0.01 + 0.99 * rounds / config.warmup_rounds)
    rate = config.lr * 0.1 ** sum(rounds >= milestone for milestone in config.milestones)
    if config.lr_decay == "cosine":
        done = (rounds - config.warmup_rounds) / (num_rounds - config.warmup_rounds)
        rate *= 0.5 * (1 + math.cos(math.pi * done))
    return rate


def update(
    student: nn.Module,
    optimizer: torch.optim.Optimizer,
    terms: Mapping[str, Tensor],
    *,
    clip_norm: float | None,
) -> None:
    """Make one optimizer step on the sum of the terms."""
    optimizer.zero_grad(set_to_none=True)
    torch.stack(list(terms.values())).sum().backward()
    if clip_norm is not None:
        nn.utils.clip_grad_norm_(student.parameters(), clip_norm)
    optimizer.step()
