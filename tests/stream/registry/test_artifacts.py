"""A model is on the disk before anybody hears of it, and says which records it learnt."""

import os
from pathlib import Path

import pytest
import torch

from model.artifact import Manifest, load_recommender
from model.config import preset
from model.items import ItemIndex
from model.learner import Learner
from model.rerank.counts import CountsConfig
from model.rerank.features import USER_FEATURES, start_weights
from model.rerank.reranker import Reranker
from ops.monitor.bins import ItemBins
from ops.monitor.signals import ScoreBins
from stream.registry.artifacts import Artifacts, Provenance, Root, read_provenance
from stream.registry.reference import Reference
from stream.wire.records import Announcement

PROVENANCE = Provenance("topic", {0: 12, 1: 7}, {1: (3, 5)})


def stored(
    folder: Path, provenance: Provenance = PROVENANCE, parent: str = "", reranker: Reranker | None = None
) -> tuple[Artifacts, Announcement]:
    artifacts = Artifacts(str(folder))
    items = ItemIndex(("a", "b"))
    learner = Learner.fresh(preset("stream"), items, seed=0, device=torch.device("cpu"))
    manifest = Manifest(version="v1-20260101T000000", parent=parent, created=1, data_until=2)
    reference = Reference("v1", ItemBins.fit({"a": 1, "b": 1}), {"a": 1, "b": 1}, ScoreBins())
    return artifacts, artifacts.save(learner, manifest, provenance, reference, reranker)


def test_which_records_were_learnt_is_read_as_it_was_written(tmp_path: Path) -> None:
    artifacts, announcement = stored(tmp_path)
    found = artifacts.load(announcement, torch.device("cpu"))[1]
    assert found._replace(root=None) == PROVENANCE and read_provenance(announcement) == found


def test_a_reranker_goes_with_its_model(tmp_path: Path) -> None:
    config = CountsConfig()
    reranker = Reranker(torch.from_numpy(start_weights(config, 3)), len(USER_FEATURES), hidden=2)
    _, announcement = stored(tmp_path / "with", reranker=reranker)
    found = load_recommender(announcement.address, announcement.sha256, torch.device("cpu")).reranker
    assert found is not None
    assert torch.equal(found.start, reranker.start)
    _, without = stored(tmp_path / "without")
    assert load_recommender(without.address, without.sha256, torch.device("cpu")).reranker is None


def test_a_model_knows_the_one_from_nothing_that_it_descends_from(tmp_path: Path) -> None:
    root = Root("v1-20260101T000000", "topic", PROVENANCE.next_offsets)
    assert read_provenance(stored(tmp_path / "root")[1]).root == root
    _, grandchild = stored(tmp_path / "child", PROVENANCE._replace(root=root), parent="v7-20260101T000000")
    assert read_provenance(grandchild).root == root
    _, of_first_release = stored(tmp_path / "old", parent="v7-20260101T000000")
    assert read_provenance(of_first_release).root is None


def test_content_names_and_address_are_synced_in_this_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the system's calls is what a loss of power would show."""
    calls: list[str] = []
    sync, rename = os.fsync, os.rename

    def noting_sync(descriptor: int) -> None:
        calls.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink()}")
        sync(descriptor)

    def noting_rename(source: str, target: str, **options: int) -> None:
        calls.append("rename")
        rename(source, target, **options)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(os, "rename", noting_rename)
    _, announcement = stored(tmp_path)
    moved = calls.index("rename")
    aside = {call.removeprefix("sync ") for call in calls[:moved]}
    names = {path.name for path in Path(announcement.address).iterdir()}
    assert {Path(path).name for path in aside if not path.endswith(".partial")} == names
    assert calls[moved - 1].endswith(".partial")  # the folder, once all of its files are there
    assert calls[moved + 1 :] == [f"sync {tmp_path}"]
