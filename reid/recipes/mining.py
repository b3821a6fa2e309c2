"""Where triplets are sought when several workers share a batch.

Released code of the methods here is one process, whose losses see the whole batch also where
`DataParallel` spreads the networks over GPUs (spcl_inclr spec, section 0; core_reid spec, section
5.1): their published figures assume `gathered`. Methods without triplets have no such choice: a
memory is contrasted with row by row, and their configs do not know the field.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Shaped
from torch import Tensor

from reid.dist import gather_batch
from reid.recipes.contract import RunConfig

Mining = Literal["gathered", "local"]


@dataclass(frozen=True, kw_only=True)
class MiningConfig(RunConfig):
    """What to train, of a method with triplets."""

    mining: Mining = "gathered"
    """triplets within the whole batch (published), or within each worker's part of it"""


def mined(rows: Shaped[Tensor, "n ..."], mining: Mining) -> Shaped[Tensor, "m ..."]:
    """Return the rows that triplets are sought among: all workers' in rank order, or this one's."""
    return gather_batch(rows) if mining == "gathered" else rows
