"""Ghost BatchNorm: statistics of groups of rows, as if each group were on a device of its own.

Legend: B rows of a batch, C channels.

Published figures of SpCL, MMT and PPLR were made by four devices that saw 16 images each, without
exchanging BatchNorm statistics; with statistics over 64 images they are missed by 2 to 20 points of
mAP (spcl_inclr spec, section 0). Groups of 16 inside a batch of 64 give one device the same
outputs and gradients. The running statistics move by the mean over groups, as the mean over workers
does. NOTE: released code that runs under `DataParallel` keeps those of the first device's images
alone, the same in expectation. Source: Hoffer et al. (arXiv 1705.08741), Algorithm 1.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class GhostNorm(nn.Module):
    """A BatchNorm over each `group` consecutive rows; its tensors keep the plain one's names.

    Takes over the parameters and running statistics of `norm`. Only training differs.

    Raises:
        ValueError: the group is below 2, or `norm` has no weights, no running statistics or no
            fixed momentum.
    """

    weight: nn.Parameter
    bias: nn.Parameter
    num_batches_tracked: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, *, group: int = 16) -> None:
        super().__init__()
        if group < 2:
            raise ValueError(f"groups of {group} rows have no statistics; give 2 or more")
        if not (norm.affine and norm.track_running_stats and norm.momentum is not None):
            raise ValueError(f"{norm} has no weights, no running statistics or no fixed momentum")
        self.kind = nn.BatchNorm1d if isinstance(norm, nn.BatchNorm1d) else nn.BatchNorm2d
        self.group = group
        self.eps = norm.eps
        self.momentum: float = norm.momentum
        _hand_over(norm, self)

    def forward(self, features: Float[Tensor, "B C *positions"]) -> Float[Tensor, "B C *positions"]:
        """Return each group standardised by its own statistics; in evaluation by the running ones.

        Groups are normalised one after the other. NOTE: no view of the rows has the groups
        side by side, as channels of one call; the copy there and back that such a call needs made
        it 2 to 3 times slower where measured (CPU).

        Raises:
            ValueError: in training, the rows are not a number of whole groups.
        """
        if not self.training:
            return self._normalise(features, self.running_mean, self.running_var)
        if len(features) % self.group:
            raise ValueError(
                f"{len(features)} rows are no whole number of groups of {self.group}: change the "
                "group, the batch or the number of workers that share it"
            )
        groups = features.split(self.group)
        means, variances = (
            moved.repeat(len(groups), 1) for moved in (self.running_mean, self.running_var)
        )
        outputs = [
            self._normalise(rows, mean, variance)
            for rows, mean, variance in zip(groups, means, variances, strict=True)
        ]
        # Running statistics are linear in a batch's: their mean moves by the mean of all groups.
        self.running_mean.copy_(means.mean(0))
        self.running_var.copy_(variances.mean(0))
        self.num_batches_tracked.add_(1)
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def plain(self) -> nn.BatchNorm1d | nn.BatchNorm2d:
        """Return the plain BatchNorm with this one's parameters and statistics, shared with it."""
        norm = self.kind(len(self.running_mean), eps=self.eps, momentum=self.momentum)
        _hand_over(self, norm)
        return norm.train(self.training)

    def extra_repr(self) -> str:
        """Return what `print` shows of the module."""
        return f"{len(self.running_mean)}, group={self.group}"

    def _normalise(self, rows: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        return F.batch_norm(
            rows,
            mean,
            variance,
            self.weight,
            self.bias,
            training=self.training,
            momentum=self.momentum,
            eps=self.eps,
        )


def convert_ghost_norm_(module: nn.Module, *, group: int = 16) -> None:
    """Replace, in place, each BatchNorm inside a network by a `GhostNorm` with its tensors.

    Inside a `DomainNorm` the rows of each domain are divided into groups on their own.

    Raises:
        ValueError: the network is itself a BatchNorm, or has been converted before.
    """
    replace_norms_(
        module,
        (nn.BatchNorm1d, nn.BatchNorm2d),
        lambda norm: GhostNorm(norm, group=group),
        done=GhostNorm,
    )


def replace_norms_(
    module: nn.Module,
    kinds: tuple[type[nn.Module], ...],
    build: Callable[..., nn.Module],
    *,
    done: type[nn.Module] | None = None,
) -> None:
    """Replace, in place, each layer of some kinds inside a network by what is built from it.

    Raises:
        ValueError: the network is itself such a layer, or contains one of kind `done`.
    """
    if isinstance(module, kinds):
        raise ValueError(f"{module} cannot be replaced in place: convert the network that holds it")
    if done is not None and any(isinstance(layer, done) for layer in module.modules()):
        raise ValueError(f"the network has {done.__name__} layers already: convert it once")
    for name, child in list(module.named_children()):
        if isinstance(child, kinds):
            setattr(module, name, build(child))
        else:
            replace_norms_(child, kinds, build)


def _hand_over(giver: nn.Module, taker: nn.Module) -> None:
    """Give one norm's parameters (frozen or not) and buffers to another."""
    for name in ("weight", "bias"):
        setattr(taker, name, getattr(giver, name))
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        taker.register_buffer(name, getattr(giver, name))
