"""Compares models under one protocol: trained over seeds, measured per user or question, compared in pairs.

    global     fit on the events before one time, then predict every later event, as a service does
               (`model.study.successive`)
    per-user   each user's history is split by time (`model.study.per_user`)
    paper      the same, with the split of the published tables
    noisy      the paper's robustness study (`model.study.noise`)

Every table has rows for fresh popularity and for the item-item term alone. `global` ranks `stream` as it is served,
with the second stage (`model.study.second_stage`), and has rows without it and without the network. The other protocols
have no order of events over all users, which the second stage needs, so their `stream` is the first stage alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from model.study.contenders import ALWAYS, CONTENDERS, FRESH_POPULARITY, ON_A_TIMELINE
from model.study.dataset import Dataset, split_per_user
from model.study.figures import HELD_OUT_METRICS, NEXT_METRICS
from model.study.interactions import Interactions
from model.study.per_user import PerUser
from model.study.progress import OnMeasured, Progress
from model.study.report import Study
from model.study.successive import Successive

__all__ = ["AGAINST", "USUAL", "Protocol", "contestants", "run"]

Protocol = Literal["global", "per-user", "paper", "noisy"]

_BASELINES = ("popularity", "covisit", "itemknn", "ease", "ease-recent")
USUAL: dict[Protocol, tuple[str, ...]] = {  # what is compared if no models are named
    "global": ("popularity", "covisit", "ease-recent", "t-diffrec", *ON_A_TIMELINE, "stream"),
    "per-user": (*_BASELINES, "t-diffrec", "stream"),
    "paper": (*_BASELINES, "diffrec", "t-diffrec-linear", "l-diffrec", "lt-diffrec"),
    "noisy": ("popularity", "ease-recent", "multvae", "diffrec", "l-diffrec", "stream"),
}
AGAINST: dict[Protocol, str] = {  # the row that the others are compared with, if none is named
    "global": FRESH_POPULARITY,
    "per-user": "ease-recent",
    "paper": "ease-recent",
    "noisy": "ease-recent",
}


def contestants(protocol: Protocol, models: Sequence[str] | None) -> list[str]:
    """The rows of a table: `models` (None: the usual ones), and those that every table has.

    Raises ValueError for an unknown model or protocol.
    """
    if protocol not in USUAL:
        raise ValueError(f"protocol must be {', '.join(get_args(Protocol))}, got {protocol!r}")
    named = USUAL[protocol] if models is None else tuple(models)
    unknown = [name for name in named if name not in CONTENDERS]
    if unknown:
        raise ValueError(f"no model {', '.join(unknown)}; there are {', '.join(CONTENDERS)}")
    untimed = [name for name in named if name in ON_A_TIMELINE and protocol != "global"]
    if untimed:
        raise ValueError(f"{', '.join(untimed)} can only be measured with the protocol global")
    return list(dict.fromkeys((*(name for name in ALWAYS if name not in named), *named)))


def run(
    source: Interactions | Dataset,
    *,
    protocol: Protocol = "per-user",
    models: Sequence[str] | None = None,
    seeds: int = 5,
    against: str | None = None,
    quantile: float = 0.9,
    variety: Sequence[float] = (),
    device: torch.device | None = None,
    progress: Progress = lambda doing, done: None,
    on_measured: OnMeasured = lambda row: None,
) -> Study:
    """Train and measure `models` on a log, or on a dataset that is split already.

    `quantile` is the share of events that the protocol `global` fits on; each `variety` gives one more row for each of
    `models`, with the protocol `per-user`. Raises ValueError for combinations that cannot be run.
    """
    names = contestants(protocol, models)
    if seeds < 1:
        raise ValueError(f"seeds must be at least 1, got {seeds}")
    against = AGAINST[protocol] if against is None else against
    device = device or torch.device("cpu")
    if protocol == "global":
        if variety:
            raise ValueError("variety is measured with the protocol per-user")
        if isinstance(source, Dataset):
            raise ValueError(f"{source.name} has no timestamps, so nothing can be cut at one moment: use a log")
        contest = Successive(source, quantile, device=device, progress=progress, on_measured=on_measured)
        rows = [contest.row(name, CONTENDERS[name], seeds) for name in names]
        return Study(source.name, protocol, against, NEXT_METRICS, rows, contest.slices(), contest.users)
    data = source if isinstance(source, Dataset) else split_per_user(source)
    published = protocol == "paper"
    if variety and published:
        raise ValueError("variety is measured with the protocol per-user")
    split = PerUser(data, as_published=published, device=device, progress=progress, on_measured=on_measured)
    asked = set(models or ())
    rows = [
        row
        for name in names
        for row in split.rows(name, CONTENDERS[name], seeds, variety if name in asked or not asked else ())
    ]
    return Study(data.name, protocol, against, HELD_OUT_METRICS, rows)
