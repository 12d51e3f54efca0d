"""A reranker is read as it was written; one of other features is left alone, one that is broken is refused."""

import numpy as np
import pytest
import torch

from model.errors import ArtifactError
from model.rerank.counts import CountsConfig
from model.rerank.features import USER_FEATURES, feature_names, start_weights
from model.rerank.reranker import Reranker
from model.rerank.stored import read_reranker, write_reranker

FEATURES = feature_names(CountsConfig())


def reranker() -> Reranker:
    torch.manual_seed(3)
    made = Reranker(torch.from_numpy(start_weights(CountsConfig(), 2)), len(USER_FEATURES), hidden=5)
    torch.nn.init.normal_(made.last.weight)
    return made


def test_it_scores_as_before() -> None:
    rng = np.random.default_rng(0)
    items = rng.normal(size=(3, 4, len(FEATURES))).astype(np.float32)
    users = rng.normal(size=(3, len(USER_FEATURES))).astype(np.float32)
    valid = rng.random((3, 4)) < 0.8
    before = reranker()
    again = read_reranker(write_reranker(before, FEATURES), FEATURES)
    assert again is not None
    np.testing.assert_array_equal(again.scores(items, users, valid), before.scores(items, users, valid))


def test_one_that_reads_other_features_is_not_served() -> None:
    assert read_reranker(write_reranker(reranker(), FEATURES), (*FEATURES[1:], "another")) is None


@pytest.mark.parametrize("content", [b"", b"\x93\x01\x02\x03", write_reranker(reranker(), FEATURES)[:-40]])
def test_what_is_no_reranker_is_refused(content: bytes) -> None:
    with pytest.raises(ArtifactError, match="unreadable"):
        read_reranker(content, FEATURES)


def test_weights_that_are_no_numbers_are_refused() -> None:
    broken = reranker()
    with torch.no_grad():
        broken.second.bias[0] = torch.nan
    with pytest.raises(ArtifactError, match="NaN"):
        read_reranker(write_reranker(broken, FEATURES), FEATURES)
