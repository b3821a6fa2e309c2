"""Networks and their parts: backbones, pooling, attention, fusion, heads, mean teacher."""

from reid.models.attention import ECAB, SECAB
from reid.models.backbones import Backbone, BackboneName, resnet
from reid.models.ema import ema_copy, ema_update
from reid.models.fusion import EnsembleFusion, bidirectional_mean
from reid.models.heads import BNNeck, classifier, reset_from_centers_
from reid.models.network import GlobalNet, NetOutput, PartNet
from reid.models.pooling import gap, gap_gmp, gmp, part_pool
from reid.models.weights import load_weights, seeded

__all__ = [
    "ECAB",
    "SECAB",
    "BNNeck",
    "Backbone",
    "BackboneName",
    "EnsembleFusion",
    "GlobalNet",
    "NetOutput",
    "PartNet",
    "bidirectional_mean",
    "classifier",
    "ema_copy",
    "ema_update",
    "gap",
    "gap_gmp",
    "gmp",
    "load_weights",
    "part_pool",
    "reset_from_centers_",
    "resnet",
    "seeded",
]
