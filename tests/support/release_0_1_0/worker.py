"""One worker of release 0.1.0: `PYTHONPATH=CHECKOUT python -P worker.py updater|scorer|trainer SERVERS FOLDER`."""

# It imports the packages of that release, which the types of today's do not describe.
# mypy: ignore-errors

import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

import torch
from prometheus_client import CollectorRegistry

from model.config import ItemItemConfig, preset
from ops.connection import KafkaConnection
from ops.metrics import ScorerMetrics, UpdaterMetrics
from stream.fine_tune import FineTuneConfig
from stream.scorer import ScorerConfig, run_scorer
from stream.topics import TopicPlan
from stream.trainer import TrainerConfig, run_trainer
from stream.updater import UpdaterConfig, run_updater

MODEL = replace(preset("stream"), dims=(8,), batch_users=64, item_item=ItemItemConfig(neighbours=4))


def main(kind: str, servers: str, folder: str) -> None:
    stop, plan, connection = threading.Event(), TopicPlan(partitions=2), KafkaConnection(servers)
    signal.signal(signal.SIGTERM, lambda signum, frame: stop.set())
    path = Path(folder) / kind
    if kind == "updater":
        run_updater(
            UpdaterConfig(path, worker="updater", history_items=8),
            connection,
            plan,
            UpdaterMetrics(CollectorRegistry()),
            stop,
        )
    elif kind == "scorer":
        metrics = ScorerMetrics(CollectorRegistry())
        run_scorer(ScorerConfig(path), connection, plan, metrics, torch.device("cpu"), stop)
    else:
        fine_tune = FineTuneConfig(first_updates=20, updates=5, model=MODEL)
        config = TrainerConfig(path, first_users=10, first_interactions=100, threads=1, fine_tune=fine_tune)
        run_trainer(config, connection, plan, CollectorRegistry(), stop)


if __name__ == "__main__":
    main(*sys.argv[1:])
