"""Takes over models as they are announced: loads, verifies and warms them up beside the traffic, then swaps them in."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import torch

from model.artifact import load_recommender
from model.batch import Histories
from model.errors import ModelError
from model.recommend import Recommender
from ops.labels import ServingSlot
from ops.metrics import ScorerMetrics
from stream.clients.connection import KafkaConnection
from stream.registry.artifacts import load_reference
from stream.registry.reference import Reference
from stream.registry.slots import Slots
from stream.scorer.models import Models
from stream.wire.records import CANARY_SLOT, Announcement

__all__ = ["Looked", "ModelLoader", "warm_up"]

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.2
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 1.0, 60.0
_WARM_UP_USERS, _WARM_UP_ITEMS = 64, 20
_SLOTS: tuple[ServingSlot, ...] = ("live", CANARY_SLOT, "previous")


def warm_up(model: Recommender, listed: int, candidates: int) -> None:
    """Make the first calls, which are slow because they allocate memory and build the graph, before any user's request.
    Raises `NonFiniteScores`."""
    some = model.items.ids[:_WARM_UP_ITEMS]
    user = some, range(len(some), 0, -1), [1.0] * len(some)
    users = Histories.pack(model.items, [user] * _WARM_UP_USERS)
    for _ in range(2):
        model.rank(users, listed)
        model.rank_with_terms(users, candidates)


Load = Callable[[str, str | None, torch.device], Recommender]


class Looked:
    """The offset up to which announcements of live models were handled: each model was loaded, or failed to load."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._offset: int | None = None

    def to(self, offset: int) -> None:
        """All announcements up to this offset of `models` were handled; -1 when nothing is announced."""
        with self._condition:
            self._offset = offset
            self._condition.notify_all()

    def wait(self, seconds: float, offset: int = -1) -> bool:
        """Wait until the announcement at `offset` was handled; False when that takes longer than `seconds`."""
        with self._condition:
            return self._condition.wait_for(lambda: self._offset is not None and self._offset >= offset, seconds)


class ModelLoader:
    """A thread that follows `models` and calls `swap` with a complete new set.

    When a live model does not load, the old one stays in its place, and loading is tried again after growing waits: the
    storage may show a file only some time after its announcement. The thread reads without a group, because every
    scorer must see every announcement.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        topic: str,
        device: torch.device,
        metrics: ScorerMetrics,
        swap: Callable[[Models], None],
        listed: int,
        candidates: int,
        load: Load = load_recommender,
    ) -> None:
        self._slots = Slots(connection, topic)
        self._device, self._metrics, self._swap = device, metrics, swap
        self._listed, self._candidates = listed, candidates  # lengths that will be asked for
        self._load_recommender = load
        self._serving: dict[ServingSlot, tuple[Announcement, Recommender]] = {}  # by slot
        self._reference: tuple[str, Reference | None] = "", None  # of the live model, by its artifact's sha256
        self._retry_at: float | None = None
        self._retry_seconds = _FIRST_RETRY_SECONDS
        self._stop = threading.Event()
        self.looked = Looked()
        self._thread = threading.Thread(target=self._follow, name="model-loader", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _follow(self) -> None:
        moved = True
        while not self._stop.is_set():
            try:
                if moved:
                    self._retry_seconds = _FIRST_RETRY_SECONDS
                if moved or (self._retry_at is not None and time.monotonic() >= self._retry_at):
                    self._take_over()
                self.looked.to(self._slots.live_offset)
                moved = self._slots.poll(_POLL_SECONDS)
            except Exception:  # the traffic goes on with the models it has
                log.exception("following the models topic failed, trying again")
                self._stop.wait(self._retry_seconds)

    def _take_over(self) -> None:
        announced = {slot: self._slots.current[slot] for slot in _SLOTS if slot in self._slots.current}
        loaded = {announcement.sha256: model for announcement, model in self._serving.values()}
        serving: dict[ServingSlot, tuple[Announcement, Recommender]] = {}
        complete = True
        for slot, announcement in announced.items():
            model = loaded.get(announcement.sha256) or self._load(slot, announcement)
            if model is not None:
                serving[slot] = announcement, model
                loaded[announcement.sha256] = model
                continue
            complete = False
            if slot == "live" and slot in self._serving:
                serving[slot] = self._serving[slot]  # what is live stays until its successor loads
        share = announced[CANARY_SLOT].share if CANARY_SLOT in announced else 0.0
        models = {slot: model for slot, (_, model) in serving.items()}
        reference = self._reference_of(serving["live"][0]) if "live" in serving else None
        known = {announcement.version: announcement for announcement, _ in serving.values()}
        self._swap(Models(models.get("live"), models.get("previous"), models.get(CANARY_SLOT), share, reference, known))
        self._report(serving)
        self._retry_at = None
        if not complete:
            self._retry_at = time.monotonic() + self._retry_seconds
            self._retry_seconds = min(2 * self._retry_seconds, _LONGEST_RETRY_SECONDS)

    def _load(self, slot: str, announcement: Announcement) -> Recommender | None:
        try:
            model = self._load_recommender(announcement.address, announcement.sha256, self._device)
            if model.version != announcement.version:
                raise ModelError(f"its artifact says it is {model.version}")
            warm_up(model, self._listed, self._candidates)
        except Exception as error:  # storage and its drivers raise anything  # noqa: BLE001
            wait = f"trying again in {self._retry_seconds:.0f} s"
            log.error("%s model %s is not taken over, %s: %s", slot, announcement.version, wait, error)
            self._metrics.scoring_failures["model"].inc()
            return None
        return model

    def _reference_of(self, announcement: Announcement) -> Reference | None:
        if self._reference[0] != announcement.sha256:
            try:
                self._reference = announcement.sha256, load_reference(announcement)
            except Exception as error:  # the model serves without its reference, too  # noqa: BLE001
                log.error("model %s is not watched for drift: %s", announcement.version, error)
                return None
        return self._reference[1]

    def _report(self, serving: dict[ServingSlot, tuple[Announcement, Recommender]]) -> None:
        metrics = self._metrics
        for slot in _SLOTS:
            before, now = self._serving.get(slot), serving.get(slot)
            if (before and before[0]) == (now and now[0]):
                continue
            if before is not None:
                metrics.model_info.remove(slot, before[0].version, before[0].parent)
            announcement = now[0] if now is not None else None
            if announcement is not None:
                log.info("%s model is %s, %d items", slot, announcement.version, announcement.items)
                metrics.model_info.labels(slot, announcement.version, announcement.parent).set(1)
                metrics.model_loaded_timestamp[slot].set_to_current_time()
            else:
                log.info("no %s model any more", slot)
                metrics.model_loaded_timestamp[slot].set(0)
            metrics.model_data_timestamp[slot].set(announcement.data_until / 1000 if announcement else 0)
            metrics.model_vocabulary_items[slot].set(announcement.items if announcement else 0)
            metrics.model_reranked[slot].set(int(now is not None and now[1].reranker is not None))
        self._serving = serving

    def close(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(2)
        self._slots.close()
