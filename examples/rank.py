"""Rank for one history with a stored model, without Kafka: `python examples/rank.py ARTIFACT tea cup`.

`freshet model list` shows where the models in service lie. Items are given newest first.
"""

import argparse
import time

import torch

from model.artifact import load_recommender
from model.batch import Histories


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", help="folder or fsspec address of a model")
    parser.add_argument("items", nargs="+", help="what the user met, newest first")
    parser.add_argument("--count", type=int, default=10)
    given = parser.parse_args()
    recommender = load_recommender(given.artifact, None, torch.device("cpu"))
    unknown = [item for item in given.items if item not in recommender.items]
    if unknown:
        print(f"the model does not know {', '.join(unknown)}")
    now_ms = int(time.time() * 1000)
    times_ms = [now_ms - place for place in range(len(given.items))]
    history = Histories.pack(recommender.items, [(given.items, times_ms, [1.0] * len(given.items))])
    ranked = recommender.rank(history, given.count)
    for column, score in zip(ranked.columns[0], ranked.scores[0], strict=True):
        if column >= 0:
            print(f"{score:8.3f}  {recommender.items.ids[column]}")


if __name__ == "__main__":
    main()
