"""Two processes under torchrun end with the same weights, which are those of one process."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from model.artifact import load_learner
from model.batch import Histories
from model.config import ItemItemConfig, ModelConfig, preset
from model.items import ItemIndex
from model.learner import Learner
from model.schedule import ScheduleConfig

# No dropout, nothing hidden, one step and next to no noise, so that only the sharing out of users is left to differ.
CONFIG = replace(
    preset("diffrec-ml1m"),
    dims=(8, 16),
    dropout=0.0,
    schedule=ScheduleConfig(steps=1),
    reweight=False,
    batch_users=20,
    item_item=ItemItemConfig(neighbours=5),
)


def world() -> Histories:
    rng = np.random.default_rng(0)
    rows = [(user, item) for user in range(60) for item in rng.permutation(np.arange(user % 2, 20, 2))[:6]]
    return Histories.from_rows(np.array(rows), 60)


def learner(config: ModelConfig, device: torch.device) -> Learner:
    return Learner.fresh(config, ItemIndex([f"i{n}" for n in range(20)]), seed=5, device=device)


def test_two_gloo_processes_learn_what_one_learns(tmp_path: Path) -> None:
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": f"{tests.parent}{os.pathsep}{tests}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(tests / "support" / "fit_worker.py"), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cpu = torch.device("cpu")
    (first, _), (second, _) = (load_learner(str(tmp_path / f"rank{rank}"), None, cpu) for rank in (0, 1))
    alone = learner(CONFIG, cpu)
    alone.fit(world(), epochs=3)
    alone.grow(["new"])
    alone.fit(world(), epochs=2)
    assert first.updates == alone.updates == 15
    for name, value in first.denoiser.state_dict().items():
        assert torch.equal(value, second.denoiser.state_dict()[name]), name
        # The new item was never met: noise alone moves its input weights, and that differs between processes.
        met = (slice(None), slice(20)) if name == "encode.weight" else ...
        torch.testing.assert_close(value[met], alone.denoiser.state_dict()[name][met], rtol=1e-2, atol=2e-3)
    assert torch.equal(first.step_sampler.losses, second.step_sampler.losses)
