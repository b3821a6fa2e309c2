"""Scores of retrieval, and pictures of them."""

from reid.evaluation.report import (
    NO_RESULT,
    Ranking,
    choose_queries,
    ranked_gallery,
    ranking_figure,
    rounds_figure,
    save_figure,
)
from reid.evaluation.retrieval import retrieval, retrieval_from_distance

__all__ = [
    "NO_RESULT",
    "Ranking",
    "choose_queries",
    "ranked_gallery",
    "ranking_figure",
    "retrieval",
    "retrieval_from_distance",
    "rounds_figure",
    "save_figure",
]
