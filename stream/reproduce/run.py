"""`freshet reproduce`: finds the wanted lists, makes them again, and compares."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from model.rerank.counts import StreamCounts
from state import codec
from state.popularity import Popularity
from stream.clients.connection import KafkaConnection
from stream.leaving.snapshot import Progress
from stream.pilots.pilot import CONTROL
from stream.reproduce.batches import Bench, Maker, Remade, Wanted, remake_batches
from stream.reproduce.items_then import read_items
from stream.reproduce.log_history import LogConfig, MergedLog, read_log
from stream.reproduce.models_then import ModelsThen, NoModel, announced_models
from stream.reproduce.refreshes_then import RefreshesThen
from stream.reproduce.served import Served, find_lists
from stream.reproduce.tapes import Segment, Tapes
from stream.reproduce.verdict import Outcome, compared, not_tried
from stream.scorer.config import ListConfig, settings_digest
from stream.scorer.journal import Batch, JournalError
from stream.scorer.models import Models
from stream.scorer.requests import Request
from stream.wire.made import Made
from stream.wire.records import CANARY_VARIANT
from stream.wire.topics import TopicPlan

__all__ = ["Question", "ReproduceConfig", "reproduce"]

log = logging.getLogger(__name__)

_OTHER_RELEASE = "it was made by a release that does not say what lists are made of"


@dataclass(frozen=True)
class Question:
    user: bytes | None  # None for all users
    at_ms: int | None  # None for the newest lists


@dataclass(frozen=True)
class ReproduceConfig:
    """The settings that the lists were made with."""

    lists: ListConfig
    log: LogConfig
    folders: tuple[Path, ...]  # of scorers, with their journals
    device: torch.device


class _Attempt:
    """One list that is to be made again, and how."""

    def __init__(self, served: Served, made: Made) -> None:
        self.served, self.made = served, made
        self.history: bytes | None = None
        self.parts: dict[str, str] = {}


def reproduce(
    connection: KafkaConnection, plan: TopicPlan, question: Question, config: ReproduceConfig, progress: Progress
) -> Iterator[Outcome]:
    """Make lists again; yields one outcome per list. Raises `LeavingError` when there is no topic."""
    found = find_lists(connection, plan, question.at_ms, question.user, progress)
    refreshes = RefreshesThen(connection, plan.refreshes)
    try:
        tapes = Tapes(config.folders)
        announced = announced_models(connection, plan.models, log.warning)
        lengths = config.lists.chosen_from, config.lists.candidates
        models = ModelsThen(announced, config.device, lengths)
        bench = Bench(config.lists, models, read_items(connection, plan.items, progress), refreshes)
        making = _Making(bench, tapes, config)
        attempts = []
        for user, served in found.lists.items():
            why = _refused(served, settings_digest(config.lists))
            if why or served.made is None:
                yield not_tried(user, why, served)
            else:
                attempts.append(_Attempt(served, served.made))
        for line in found.unreadable:
            yield not_tried(question.user or b"", f"{plan.recommendations} {line}")
        users = [*(attempt.served.user for attempt in attempts), *found.only_later]
        merged = read_log(connection, plan.interactions, users, config.log, progress) if users else None
        if attempts and merged is not None:
            yield from making.again(attempts, merged, progress)
        if question.at_ms is not None and question.user is not None:
            for user in found.only_later:
                yield making.compacted(user, question.at_ms)
        if question.user is not None and not (found.lists or found.only_later or found.unreadable):
            forgotten = question.user in found.forgotten
            why = "the user was forgotten by then, and has no list" if forgotten else "no list of the user is there"
            yield not_tried(question.user, why)
    finally:
        refreshes.close()


def _refused(served: Served, settings: int) -> str:
    pilot = served.list.pilot
    if pilot is not None and pilot.variant != CONTROL:
        return f"it is of variant {pilot.variant} of pilot {pilot.name}, whose settings no journal names"
    if served.made is None:
        return _OTHER_RELEASE
    if served.made.settings != settings:
        return (
            "it was made with other settings than these of list_items, popularity_half_life_ms, [events], [items] or "
            "the candidates of the second stage: give the settings of then by --config or --set"
        )
    return ""


class _Making:
    def __init__(self, bench: Bench, tapes: Tapes, config: ReproduceConfig) -> None:
        self._bench, self._tapes, self._config = bench, tapes, config

    def again(self, attempts: Iterable[_Attempt], merged: MergedLog, progress: Progress) -> Iterator[Outcome]:
        """Outcomes of the lists whose records say what they were made of."""
        by_segment: dict[Path, list[_Attempt]] = defaultdict(list)
        segments: dict[Path, Segment] = {}
        alone: list[tuple[_Attempt, str]] = []
        for attempt in attempts:
            served, made = attempt.served, attempt.made
            attempt.history = merged.history(served.user, served.partition, made.history)
            attempt.parts["history"] = "merged from the log"
            if attempt.history is None:
                why = merged.why_not(served.partition)
                attempt.parts["history"] = f"not merged from the log, where it is not found: {why}"
            try:
                segment = self._tapes.holding(made.scorer, made.batch)
            except JournalError as error:
                alone.append((attempt, str(error)))
                continue
            segments[segment.tape] = segment
            by_segment[segment.tape].append(attempt)
        for tape, some in by_segment.items():
            for attempt, remade in self._segment(segments[tape], some, progress):
                if remade.answer is None:
                    alone.append((attempt, remade.why))
                    continue
                if attempt.history is None:
                    attempt.parts["history"] += "; that of its refresh was taken"
                yield compared(attempt.served, remade.answer, self._bench.items, attempt.parts)
        for attempt, why in alone:
            yield self._alone(attempt, why)

    def _segment(
        self, segment: Segment, attempts: Iterable[_Attempt], progress: Progress
    ) -> Iterator[tuple[_Attempt, Remade]]:
        batches: dict[int, dict[bytes, _Attempt]] = defaultdict(dict)
        counted = False
        for attempt in attempts:
            batches[attempt.made.batch][attempt.served.user] = attempt
            counts = self._by_counts(attempt)
            counted |= counts
            attempt.parts["scored"] = (
                "in its batch, by what its scorer had counted" if counts else "in its batch, by its model alone"
            )
        wanted = [
            Wanted(
                number,
                {user: attempt.history for user, attempt in some.items()},
                max(attempt.made.event_ms for attempt in some.values()),
            )
            for number, some in sorted(batches.items())
        ]
        shown = f"batches of {segment.start.life}"
        remade = remake_batches(
            self._bench, segment, wanted, counted, lambda done, todo: progress(shown, done, max(todo, 1))
        )
        for number, answers in remade:
            for user, one in answers.items():
                yield batches[number][user], one

    def _by_counts(self, attempt: _Attempt) -> bool:
        """Whether the list depends on the scorer's counts."""
        if not attempt.served.list.model:
            return True
        try:
            model = self._bench.models.named(attempt.served.list.model, attempt.made.model)
        except NoModel:
            return False  # making the batch reports the missing model
        return model.reranker is not None

    def _alone(self, attempt: _Attempt, why: str) -> Outcome:
        """Make a list without its batch, from the log and the model alone, if it depends on nothing else."""
        served, made, parts = attempt.served, attempt.made, attempt.parts
        parts.pop("scored", None)
        if not served.list.model:
            return not_tried(served.user, f"popularity as it was then: {why}", served, parts)
        if attempt.history is None:
            return not_tried(served.user, f"neither the log nor its batch has its history: {why}", served, parts)
        try:
            model = self._bench.models.named(served.list.model, made.model)
        except NoModel as error:
            return not_tried(served.user, str(error), served, parts)
        if model.reranker is not None:
            return not_tried(
                served.user, f"the second stage, by what its scorer had counted then: {why}", served, parts
            )
        parts["scored"] = f"alone, by its model, which rounds otherwise: {why}"
        lists = self._config.lists
        maker = Maker(lists, self._bench.items, Popularity(lists.popularity_half_life_ms), StreamCounts())
        maker.move_to(served.list.published, made.items, made.event_ms)
        request = Request(served.partition, 0, served.user, codec.read(attempt.history), "event")
        (answer,) = maker.make([request], Models(live=model)).values()
        if (answer.variant, served.list.variant) == ("control", CANARY_VARIANT):
            answer = answer._replace(variant=CANARY_VARIANT)  # a canary ranks in the same way
        return compared(served, answer, self._bench.items, parts, alone=True)

    def compacted(self, user: bytes, at_ms: int) -> Outcome:
        """Make a list whose record does not exist any more, from the last refresh and the batch that took it."""
        why = "no list of the user from before that moment is left: there was none, or compaction removed it"
        place = self._bench.refreshes.last_of(user, at_ms)
        held = None if place is None else self._tapes.batch_with(*place, at_ms)
        if held is None:
            return not_tried(user, f"{why}, and no journal tells of it")
        life, batch = held
        try:
            segment = self._tapes.holding(life, batch.number)
        except JournalError as error:
            return not_tried(user, f"{why}: {error}")
        remade = self._one(segment, batch, user)
        if remade.answer is None:
            return not_tried(user, f"{why}: {remade.why}")
        outcome = not_tried(user, f"{why}; this is what its scorer made of the last refresh before")
        outcome.made_again, outcome.written = remade.answer.items, batch.clock_ms
        outcome.model, outcome.variant = remade.answer.version, remade.answer.variant
        outcome.parts = {"history": "that of its refresh", "scored": "in its batch"}
        return outcome

    def _one(self, segment: Segment, batch: Batch, user: bytes) -> Remade:
        histories: Mapping[bytes, bytes | None] = {user: None}
        wanted = [Wanted(batch.number, histories, 0)]
        for _, answers in remake_batches(self._bench, segment, wanted, True, lambda done, todo: None):
            return answers[user]
        return Remade(None, "its batch is not in the journal")
