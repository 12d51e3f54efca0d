"""The arms of a backtest, built from their names."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from model.batch import Histories
from model.config import ItemItemConfig, ModelConfig, preset
from model.items import ItemIndex
from model.ranker import Ranker
from model.study.linear import Ease, ItemItemAlone
from model.weighting import Weighting
from state.store import Store, StoreMemory
from stream.backtest.arms import Arm, FreshPopularity, RefittedArm, Service
from stream.backtest.config import BacktestConfig
from stream.backtest.model_arms import Frozen, Retrained
from stream.backtest.system import System, SystemState
from stream.backtest.windows import fitting_windows

__all__ = ["build_arms"]

_EASE_HALF_LIFE = 3.0  # items


def build_arms(
    config: BacktestConfig,
    service: Service,
    folder: Path,
    device: torch.device,
    memory: StoreMemory,
    states: Mapping[str, SystemState],
    stop: threading.Event,
    doing: Callable[[str], None],
) -> dict[str, Arm]:
    """The arms by name. Models are stored in `folder`/<arm>; state that can be computed again from the log is stored
    in `folder`/state."""
    windows = config.windows or fitting_windows(service.log)

    def system(name: str, model: ModelConfig) -> System:
        place = name.replace(":", "-")
        trainer = config.trainer_of(folder / place, windows)
        identity = {"backtest": service.log.fingerprint(), "view": name}
        return System(
            name,
            service,
            replace(trainer, fine_tune=replace(trainer.fine_tune, model=model)),
            config.lists,
            device,
            Store(folder / "state" / place, identity, memory),
            stop=stop,
            state=states.get(name),
            doing=doing,
        )

    own = config.trainer.fine_tune.model
    main = system("system", own)
    arms: dict[str, Arm] = {}
    for name in config.names:
        if name == "system":
            arms[name] = main
        elif name == "fresh-popularity":
            arms[name] = FreshPopularity(service)
        elif name == "item-item":
            arms[name] = RefittedArm(name, service, partial(_item_item, own.item_item, device))
        elif name == "ease-recent":
            arms[name] = RefittedArm(name, service, _ease_recent)
        elif name == "frozen":
            arms[name] = Frozen(service, main, device)
        elif name == "retrained":
            tuning, seed = config.trainer.fine_tune, config.trainer.seed
            arms[name] = Retrained(service, tuning, seed, device, str(folder / name), stop.is_set)
        else:
            arms[name] = system(name, preset(name.removeprefix("preset:")))
    return arms


def _item_item(term: ItemItemConfig, device: torch.device, items: ItemIndex, histories: Histories) -> Ranker:
    return ItemItemAlone(items, term, device).fit(histories)


def _ease_recent(items: ItemIndex, histories: Histories) -> Ranker:
    return Ease(items, Weighting("exponential_rank", half_life=_EASE_HALF_LIFE)).fit(histories)
