"""Noise disturbs what is learnt and never what is measured."""

import numpy as np
import pytest

from model.study.dataset import Dataset, split_per_user
from model.study.interactions import Interactions
from model.study.noise import run_noisy, with_natural_noise, with_random_noise
from tests.model.study.test_protocols import walks


def entries(part: object) -> set[tuple[int, int]]:
    users = np.repeat(np.arange(len(part)), part.lengths)  # type: ignore[arg-type, attr-defined]
    return set(zip(users.tolist(), part.columns.tolist(), strict=True))  # type: ignore[attr-defined]


def everything(data: Dataset) -> set[tuple[int, int]]:
    return entries(data.train) | entries(data.middle) | entries(data.last)


def test_random_noise_adds_a_share_of_what_the_user_never_met() -> None:
    clean = split_per_user(walks())
    noisy = with_random_noise(clean, 0.5, np.random.default_rng(0))
    assert noisy.last is clean.last
    for before, after in ((clean.train, noisy.train), (clean.middle, noisy.middle)):
        assert (after.lengths == before.lengths + np.round(before.lengths * 0.5)).all()
        assert entries(before) <= entries(after)
        for user in range(len(after)):
            assert (np.diff(after.times_ms[after.offsets[user] : after.offsets[user + 1]]) <= 0).all()
    added = (entries(noisy.train) | entries(noisy.middle)) - everything(clean)
    assert len(added) == noisy.train.lengths.sum() + noisy.middle.lengths.sum() - (
        clean.train.lengths.sum() + clean.middle.lengths.sum()
    )


def test_natural_noise_keeps_the_size_and_the_time() -> None:
    log = walks()
    clean = split_per_user(log)
    rows = np.arange(len(log))
    low = Interactions.ordered("low", log.users[rows], (log.items + 90) % 180, log.times_ms[rows], log.item_ids)
    noisy = with_natural_noise(clean, np.unique(log.users), low, np.random.default_rng(0))
    assert noisy.last is clean.last
    for before, after in ((clean.train, noisy.train), (clean.middle, noisy.middle)):
        assert (after.lengths == before.lengths).all()
    foreign = (entries(noisy.train) - entries(clean.train)) & everything(clean)
    assert not foreign and len(entries(noisy.train) - entries(clean.train)) > 100
    assert noisy.train.times_ms.max() <= clean.train.times_ms.max()


def test_a_study_of_noise_tells_what_is_kept() -> None:
    log = walks(users=30)
    low = Interactions.ordered("low", log.users, (log.items + 90) % 180, log.times_ms, log.item_ids)
    study = run_noisy(log, low, models=["covisit"], seeds=1)
    shares = [f"random {share}%" for share in (10, 20, 30, 40, 50)]
    assert list(study.studies) == ["none", *shares, "natural"]
    assert study.kept("none", "covisit") == 1
    assert study.kept("natural", "covisit") < 0.9
    records = study.records()
    assert len(records) == 7 * 3 and {"noise", "kept", "model", "NDCG@20"} <= set(records[0])
    with pytest.raises(ValueError, match="no model"):
        run_noisy(log, None, models=["resnet"])
