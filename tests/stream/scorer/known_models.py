"""Models whose lists are known, as a scorer takes them."""

from typing import cast

from model.recommend import Recommender
from tests.support.scoring import CATALOGUE, Fixed


def fixed(version: str, order: str, items: tuple[str, ...] = CATALOGUE, fails: type | None = None) -> Recommender:
    """`Fixed` has what a scorer asks of a model, without being one."""
    return cast(Recommender, Fixed(version, order, items, fails))
