"""Run by `torchrun`: fits one learner in all processes; each stores what it ended with."""

import sys
from pathlib import Path

import torch

from model.artifact import Manifest, save_artifact
from model.distributed import joined_by_torchrun, process_rank
from tests.model.test_learner_distributed import CONFIG, learner, world

if __name__ == "__main__":
    torch.set_num_threads(1)
    with joined_by_torchrun(torch.device("cpu")) as device:
        fitted = learner(CONFIG, device)
        fitted.fit(world(), epochs=3)
        fitted.grow(["new"])
        fitted.fit(world(), epochs=2)
        manifest = Manifest(version=f"rank{process_rank()}", created=1, data_until=2)
        save_artifact(str(Path(sys.argv[1]) / f"rank{process_rank()}"), fitted, manifest)
