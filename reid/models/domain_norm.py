"""Domain-specific BatchNorm: statistics and weights of its own for each domain of a joint batch.

Legend: B rows of a batch, C channels.

    convert_domain_norm_(net)
    with domains(net, (len(source), len(target))):
        out = net(torch.cat([source, target]))

Source: Chang et al. (arXiv 1906.03950), section 3; as SpCL uses it (spcl_inclr spec 1.5): every
BatchNorm is doubled, the neck's too, all other weights are shared, evaluation uses the target's.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from reid.models.ghost_norm import GhostNorm, replace_norms_

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, GhostNorm)

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class DomainNorm(nn.Module):
    """A BatchNorm for each domain, `norms`: by convention source first, target last.

    Which rows belong to which domain is said by `domains` or `one_domain` around the forward.
    """

    def __init__(self, norm: nn.Module, *, num_domains: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([norm, *(copy.deepcopy(norm) for _ in range(num_domains - 1))])
        self.assigned: tuple[int, ...] | int | None = None
        """rows of each domain in turn, or the domain of all rows, or unsaid"""

    def forward(self, features: Float[Tensor, "B C *positions"]) -> Float[Tensor, "B C *positions"]:
        """Return each row normalised by the BatchNorm of its domain.

        Unsaid, rows are of the last domain in evaluation.

        Raises:
            ValueError: in training the domains are unsaid, or their rows are not the batch's.
        """
        if self.assigned is None and self.training:
            raise ValueError(
                "a network with domain-specific BatchNorm must be told in training which rows "
                "belong to which domain: call it inside `with domains(net, sizes)` or "
                "`with one_domain(net, domain)`"
            )
        if not isinstance(self.assigned, tuple):
            whole: Tensor = self.norms[-1 if self.assigned is None else self.assigned](features)
            return whole
        if sum(self.assigned) != len(features):
            raise ValueError(
                f"domains of {self.assigned} rows were announced, but {len(features)} rows came: "
                "give each domain's rows in this process's batch"
            )
        parts = zip(self.norms, features.split(self.assigned), strict=True)
        # A domain without rows leaves its statistics alone, and gets no gradient.
        return torch.cat([norm(rows) for norm, rows in parts if len(rows)])


def convert_domain_norm_(module: nn.Module, num_domains: int = 2) -> None:
    """Replace, in place, each BatchNorm inside a network by a `DomainNorm` of copies of it.

    Convert before teachers are copied and optimizers made. All domains start equal. May follow or
    precede `convert_ghost_norm_`.

    Raises:
        ValueError: fewer than 2 domains, or the network is itself a BatchNorm or was converted.
    """
    if num_domains < 2:
        raise ValueError(f"num_domains is {num_domains}; it must be at least 2")
    replace_norms_(
        module, _NORMS, lambda norm: DomainNorm(norm, num_domains=num_domains), done=DomainNorm
    )


@contextmanager
def domains(net: nn.Module, sizes: Sequence[int]) -> Iterator[None]:
    """Say, for forwards inside the block, how many rows of the batch each domain has, in order.

    `net` may be wrapped for distributed training, or hold several networks. One without
    domain-specific BatchNorm is left as it is. Under a distributed wrapper no domain may be empty:
    its parameters would wait for a gradient.

    Raises:
        ValueError: another number of domains than the network has, or a negative size.
    """
    layers = _domain_norms(net)
    for layer in layers:
        if len(sizes) != len(layer.norms) or min(sizes) < 0:
            raise ValueError(
                f"sizes are {tuple(sizes)}, but the network has {len(layer.norms)} domains: give "
                "each one's number of rows"
            )
    with _assigned(layers, tuple(sizes)):
        yield


@contextmanager
def one_domain(net: nn.Module, domain: int) -> Iterator[None]:
    """Say, for forwards inside the block, that all rows are of one domain.

    Raises:
        ValueError: the network has no domain of this number.
    """
    layers = _domain_norms(net)
    for layer in layers:
        if not 0 <= domain < len(layer.norms):
            raise ValueError(f"domain is {domain}; the network has 0 to {len(layer.norms) - 1}")
    with _assigned(layers, domain):
        yield


def export_plain(net: ModuleT, domain: int = -1) -> ModuleT:
    """Return a copy of a network with one domain's plain BatchNorm layers, the last's by default.

    In evaluation it computes what `net` does for that domain, bit for bit; its state dictionary
    has the names of the network before any conversion. Groups (`GhostNorm`) become plain too.
    """
    plain = copy.deepcopy(net)
    replace_norms_(plain, (DomainNorm,), lambda layer: layer.norms[domain])
    replace_norms_(plain, (GhostNorm,), lambda layer: layer.plain())
    return plain


def _domain_norms(net: nn.Module) -> list[DomainNorm]:
    return [layer for layer in net.modules() if isinstance(layer, DomainNorm)]


@contextmanager
def _assigned(layers: Sequence[DomainNorm], rows: tuple[int, ...] | int) -> Iterator[None]:
    """Assign rows to domains inside the block; what was assigned outside holds again after it."""
    before = [layer.assigned for layer in layers]
    for layer in layers:
        layer.assigned = rows
    try:
        yield
    finally:
        for layer, rows_before in zip(layers, before, strict=True):
            layer.assigned = rows_before
