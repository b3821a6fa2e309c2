"""Losses, each a function from features or logits and labels to a scalar."""

from reid.losses.identity import smoothed_cross_entropy
from reid.losses.triplet import softmax_triplet

__all__ = ["smoothed_cross_entropy", "softmax_triplet"]
