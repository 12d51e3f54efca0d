"""A log whose right answers are known: everybody walks the catalogue in steps, and the step changes half-way."""

import numpy as np

from stream.backtest.config import BacktestConfig
from stream.backtest.event_log import EventLog
from stream.trainer.config import TrainerConfig
from stream.trainer.fine_tune import FineTuneConfig

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000
ITEMS = 60

QUICK = BacktestConfig(
    round_days=4.0,
    checkpoint_events=300,
    trainer=TrainerConfig(
        first_users=10,
        first_interactions=200,
        threads=1,
        fine_tune=FineTuneConfig(first_epochs=8, epochs=4, first_updates=1, updates=1, last_updates=1),
    ),
)


def walks(users: int = 160, length: int = 12, days: int = 40, seed: int = 0) -> EventLog:
    """Users arrive one after another and act once a day; before the middle the step is 1, after it 7."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        item, day = int(rng.integers(ITEMS)), user * (days - length) / users
        for _ in range(length):
            rows.append((user, item, START_MS + int((day + rng.random()) * DAY_MS)))
            item, day = (item + (1 if day < days / 2 else 7)) % ITEMS, day + 1
    users_of, items_of, times_ms = (np.array(column) for column in zip(*rows, strict=True))
    ids = [f"u{n}" for n in range(users)], [f"i{n}" for n in range(ITEMS)], [""]
    count = len(rows)
    return EventLog.ordered("walks", ids, (users_of, items_of, times_ms, np.ones(count), np.zeros(count)))
