"""Networks and their parts: backbones, norms, pooling, attention, fusion, heads, mean teacher."""

from reid.models.attention import ECAB, SECAB
from reid.models.backbones import Backbone, BackboneName, resnet
from reid.models.domain_norm import convert_domain_norm_, domains, export_plain, one_domain
from reid.models.ema import ema_copy, ema_step_, ema_update
from reid.models.fusion import EnsembleFusion, bidirectional_mean
from reid.models.ghost_norm import convert_ghost_norm_
from reid.models.heads import BNNeck, DynamicClassifier, classifier, reset_from_centers_
from reid.models.network import GlobalNet, NetOutput, PartNet, PoolingName
from reid.models.pair import NetPair
from reid.models.part_branches import BranchNet, branch_views
from reid.models.pooling import GeM, gap, gap_gmp, gmp, part_gap, part_pool
from reid.models.weights import below, load_weights, seeded

__all__ = [
    "ECAB",
    "SECAB",
    "BNNeck",
    "Backbone",
    "BackboneName",
    "BranchNet",
    "DynamicClassifier",
    "EnsembleFusion",
    "GeM",
    "GlobalNet",
    "NetOutput",
    "NetPair",
    "PartNet",
    "PoolingName",
    "below",
    "bidirectional_mean",
    "branch_views",
    "classifier",
    "convert_domain_norm_",
    "convert_ghost_norm_",
    "domains",
    "ema_copy",
    "ema_step_",
    "ema_update",
    "export_plain",
    "gap",
    "gap_gmp",
    "gmp",
    "load_weights",
    "one_domain",
    "part_gap",
    "part_pool",
    "reset_from_centers_",
    "resnet",
    "seeded",
]
