"""A learner continues exactly, grows in place, and learns a world whose answer is known."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

import model.learner
from model.artifact import Manifest, load_learner, load_recommender, save_artifact
from model.batch import Histories
from model.config import ItemItemConfig, LatentConfig, preset
from model.errors import ArtifactError, ModelError
from model.items import ItemIndex
from model.learner import Learner

CPU = torch.device("cpu")
SMALL = replace(preset("stream"), dims=(16, 32), batch_users=64, item_item=ItemItemConfig(neighbours=5))
MANIFEST = Manifest(version="v1", created=1, data_until=2)


def checkerboard(users: int = 120, items: int = 20, length: int = 6, seed: int = 0) -> Histories:
    """Even users like even items, odd users odd ones."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        liked = rng.permutation(np.arange(user % 2, items, 2))[:length]
        rows += [(user, item) for item in liked]
    return Histories.from_rows(np.array(rows), users)


def index(items: int = 20) -> ItemIndex:
    return ItemIndex([f"i{n}" for n in range(items)])


@pytest.mark.parametrize("name", ["stream", "stream-diffusion", "diffrec-ml1m", "t-diffrec-ml1m"])
def test_every_preset_learns_the_checkerboard(name: str) -> None:
    config = replace(preset(name), dims=(16, 32), batch_users=32, learning_rate=5e-3)
    learner = Learner.fresh(config, index(), seed=1, device=CPU)
    histories = checkerboard()
    learner.fit(histories, epochs=60)
    top = learner.recommender("v").rank(histories, k=2).columns
    right = top % 2 == np.arange(len(histories))[:, None] % 2
    assert right.mean() > 0.95


def test_seen_items_and_padding_are_never_recommended() -> None:
    learner = Learner.fresh(SMALL, index(), seed=1, device=CPU)
    histories = checkerboard()
    learner.fit(histories, epochs=1)
    ranked = learner.recommender("v").rank(histories, k=20)
    for user in range(len(histories)):
        seen = set(histories.columns[histories.offsets[user] : histories.offsets[user + 1]])
        shown = ranked.columns[user][: 20 - len(seen)]
        assert len(set(shown) | seen) == 20 and not set(shown) & seen
        assert (ranked.columns[user][20 - len(seen) :] == -1).all()
        assert (np.diff(ranked.scores[user][: 20 - len(seen)]) <= 0).all()


def test_a_gradient_that_is_too_long_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.learner, "_CLIP_NORM", 1e-4)
    learner = Learner.fresh(SMALL, index(), seed=1, device=CPU)
    report = learner.fit(checkerboard(), epochs=1)
    left = [parameter.grad for parameter in learner.denoiser.parameters() if parameter.grad is not None]
    assert report.last.gradient_norm > 1e-3  # as it was before
    assert float(torch.nn.utils.get_total_norm(left)) == pytest.approx(1e-4, rel=0.02)


def test_without_an_average_the_last_weights_serve(tmp_path: Path) -> None:
    learner = Learner.fresh(replace(SMALL, ema=0.0), index(), seed=1, device=CPU)
    learner.fit(checkerboard(), epochs=2)
    save_artifact(str(tmp_path / "m"), learner, MANIFEST)
    served = load_recommender(str(tmp_path / "m"), None, CPU).scores(checkerboard())
    torch.testing.assert_close(served, learner.recommender("v").scores(checkerboard()))
    learner.average.decode.weight.mul_(0)  # plays no part
    torch.testing.assert_close(served, learner.recommender("v").scores(checkerboard()))


@pytest.mark.parametrize(("has_units", "same_as"), [(True, "bfloat16"), (False, "float32")])
def test_auto_trains_in_bfloat16_where_the_device_has_units_for_it(
    has_units: bool, same_as: Literal["bfloat16", "float32"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model.learner, "multiplies_bfloat16", lambda device: has_units)
    weights = {}
    for precision in ("auto", "bfloat16", "float32"):
        learner = Learner.fresh(replace(SMALL, training_precision=precision), index(), seed=1, device=CPU)
        learner.fit(checkerboard(), epochs=2)
        weights[precision] = learner.denoiser.decode.weight
    assert weights["auto"].dtype == torch.float32  # what is kept is whole; only products are rounded
    assert torch.equal(weights["auto"], weights[same_as])
    assert not torch.equal(weights["bfloat16"], weights["float32"])


@pytest.mark.parametrize("name", ["stream", "diffrec-ml1m"])
def test_stopping_and_continuing_equals_going_on_bit_for_bit(name: str, tmp_path: Path) -> None:
    config = replace(preset(name), dims=(16, 32), batch_users=32)
    histories = checkerboard()
    through = Learner.fresh(config, index(), seed=3, device=CPU)
    through.fit(histories, epochs=4)
    halted = Learner.fresh(config, index(), seed=3, device=CPU)
    halted.fit(histories, epochs=2)
    save_artifact(str(tmp_path / "m"), halted, MANIFEST)
    resumed, _ = load_learner(str(tmp_path / "m"), None, CPU)
    resumed.fit(histories, epochs=2)
    for a, b in ((through.denoiser, resumed.denoiser), (through.average, resumed.average)):
        for name, value in a.state_dict().items():
            assert torch.equal(value, b.state_dict()[name]), name


def test_growing_moves_no_old_weight_and_no_old_moment() -> None:
    learner = Learner.fresh(SMALL, index(), seed=1, device=CPU)
    learner.fit(checkerboard(), epochs=2)
    before = {name: p.detach().clone() for name, p in learner.denoiser.named_parameters()}
    moments = {name: learner.optimizer.state[p]["exp_avg"].clone() for name, p in learner.denoiser.named_parameters()}
    assert learner.grow(["i3", "new1", "new2"]) == 2
    for name, parameter in learner.denoiser.named_parameters():
        old = tuple(slice(0, size) for size in before[name].shape)
        assert torch.equal(parameter[old], before[name]), name
        assert torch.equal(learner.optimizer.state[parameter]["exp_avg"][old], moments[name]), name
    learner.fit(checkerboard(items=22), epochs=1)
    assert learner.recommender("v").rank(checkerboard(items=22), k=3).columns.max() <= 21


def test_a_stored_model_ranks_as_the_one_it_was_stored_from(tmp_path: Path) -> None:
    learner = Learner.fresh(SMALL, index(), seed=1, device=CPU)
    histories = checkerboard()
    learner.fit(histories, epochs=2)
    sha256 = save_artifact(f"file://{tmp_path}/m", learner, MANIFEST)
    loaded = load_recommender(f"file://{tmp_path}/m", sha256, CPU)
    expected = learner.recommender("v1").rank(histories, 5)
    assert loaded.version == "v1" and loaded.items.ids == learner.items.ids
    assert np.array_equal(loaded.rank(histories, 5).columns, expected.columns)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("name", ["manifest.json", "serving.safetensors"])
def test_an_altered_artifact_is_refused(name: str, tmp_path: Path) -> None:
    learner = Learner.fresh(SMALL, index(), seed=1, device=CPU)
    sha256 = save_artifact(str(tmp_path / "m"), learner, MANIFEST)
    file = tmp_path / "m" / name
    file.write_bytes(file.read_bytes().replace(b"0", b"1"))
    with pytest.raises(ArtifactError, match="sha256"):
        load_recommender(str(tmp_path / "m"), sha256, CPU)


def test_nan_parameters_are_refused_by_name(tmp_path: Path) -> None:
    learner = Learner.fresh(SMALL, index(), seed=1, device=CPU)
    with torch.no_grad():
        learner.average.decode.bias[3] = float("nan")
    with pytest.raises(ModelError, match=r"decode\.bias"):
        learner.recommender("v")
    save_artifact(str(tmp_path / "m"), learner, MANIFEST)
    with pytest.raises(ModelError, match=r"decode\.bias"):
        load_recommender(str(tmp_path / "m"), None, CPU)


LONG = 100_000


@pytest.mark.parametrize("name", ["stream", "lt-diffrec-ml1m"])
def test_scores_are_finite_for_any_history(name: str) -> None:
    config = replace(preset(name), dims=(8,), latent=preset(name).latent and LatentConfig(width=8))
    learner = Learner.fresh(config, index(20), seed=1, device=CPU)
    learner.fit(checkerboard(), epochs=1)
    learner.grow(f"i{n}" for n in range(LONG + 5))
    histories: dict[str, tuple[list[str], list[int], list[float]]] = {
        "empty": ([], [], []),
        "one item": (["i1"], [5], [1.0]),
        "only unknown items": (["x", "y"], [5, 4], [1.0, 1.0]),
        "weights of zero": (["i1", "i2"], [5, 4], [0.0, 0.0]),
        "100,000 items": ([f"i{n}" for n in range(LONG)], list(range(LONG, 0, -1)), [1.0] * LONG),
    }
    recommender = learner.recommender("v")
    packed = Histories.pack(recommender.items, histories.values())
    assert packed.lengths.tolist() == [0, 1, 0, 2, LONG]
    ranked = recommender.rank(packed, k=5)
    assert np.isfinite(ranked.scores).all() and (ranked.columns >= 0).all()
    assert set(ranked.columns[-1]) == set(range(LONG, LONG + 5))


def test_a_batch_scores_as_its_rows_do() -> None:
    learner = Learner.fresh(SMALL, index(), seed=1, device=CPU)
    histories = checkerboard()
    learner.fit(histories, epochs=1)
    recommender = learner.recommender("v")
    together = recommender.rank(histories, 4)
    for user in (0, 7, 119):
        alone = recommender.rank(histories.select(np.array([user])), 4)
        np.testing.assert_allclose(alone.scores[0], together.scores[user], rtol=1e-4, atol=1e-5)
