"""Losses, each a function from features or logits and labels to a scalar."""

from reid.losses.cameras import camera_contrast
from reid.losses.identity import (
    accuracy_weights,
    center_logits,
    smoothed_cross_entropy,
    soft_cross_entropy,
    weighted_cross_entropy,
)
from reid.losses.parts import agreement_label_smoothing, part_guided_refinement
from reid.losses.triplet import batch_hard_triplet, soft_softmax_triplet, softmax_triplet

__all__ = [
    "accuracy_weights",
    "agreement_label_smoothing",
    "batch_hard_triplet",
    "camera_contrast",
    "center_logits",
    "part_guided_refinement",
    "smoothed_cross_entropy",
    "soft_cross_entropy",
    "soft_softmax_triplet",
    "softmax_triplet",
    "weighted_cross_entropy",
]
