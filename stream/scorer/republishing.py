"""Publishes lists again, between batches of fresh events; `stream.scorer.renewal` says which lists."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping, Sequence

from ops.metrics import ScorerMetrics
from stream.scorer.publisher import Publisher, offsets_of
from stream.scorer.refresh_stream import RefreshStream
from stream.scorer.renewal import RenewedList, RenewedPage, published_again, renew_page
from stream.scorer.scoring_thread import ScoringThread
from stream.scorer.shown_lists import LastList, Offsets, ShownLists
from stream.wire.catalogue import Catalogue
from stream.wire.items import ItemRecord

__all__ = ["Republishing"]


class Republishing:
    """Its coroutines run on the event loop of `stream`."""

    def __init__(
        self,
        stream: RefreshStream,
        thread: ScoringThread,
        publisher: Publisher,
        lists: ShownLists,
        catalogue: Catalogue,
        metrics: ScorerMetrics,
    ) -> None:
        self._stream, self._thread, self._publisher = stream, thread, publisher
        self._lists, self._catalogue, self._metrics = lists, catalogue, metrics

    async def change_items(self, changes: Mapping[str, ItemRecord | None], next_offset: int = 0) -> None:
        """Apply `changes`, which lie before `next_offset` of the topic, to lists made from now on; then renew the
        published lists that hold items which may not be listed any more."""
        async with self._stream.between_batches():
            gone = await self._thread.call(self._change_items, changes, next_offset)
        for number in sorted(self._stream.answered):
            await self._renew(number, gone)

    async def answered(self, number: int) -> None:
        """A partition is answered from now on: renew the lists that others published while they did not know yet which
        items may not be listed."""
        await self._renew(number, await self._thread.call(lambda: self._catalogue.unlisted(_now_ms())))

    async def publish_again(self, number: int, newer: Mapping[bytes, LastList]) -> None:
        """Publish these lists of a partition over older ones. Returns when the brokers have them."""
        lists = self._lists[number]
        if lists is not None:
            async with self._stream.between_batches():
                again = await self._thread.call(published_again, lists, newer, _now_ms())
                await self._send(number, again)
            self._metrics.lists_published_again.inc(len(again))

    async def _renew(self, number: int, gone: Collection[str]) -> None:
        """Renew one page at a time between two batches, so that fresh events wait for one page at most."""
        lists = self._lists[number]
        page = RenewedPage([], b"")
        while gone and lists and page.after is not None and number in self._stream.answered and not self._stream.failed:
            async with self._stream.between_batches():
                page = await self._thread.call(renew_page, lists, self._catalogue, gone, page.after, _now_ms())
                await self._send(number, page.lists)
            self._metrics.renewed_lists.inc(len(page.lists))

    async def _send(self, number: int, lists: Sequence[RenewedList]) -> None:
        if lists:
            departures = await self._publisher.send_renewed(number, lists)
            await asyncio.gather(*[departure.delivered for departure in departures])
            await self._thread.call(self._note, number, lists, offsets_of(departures))

    # -- on the scoring thread -----------------------------------------------------------------------------------------

    def _change_items(self, changes: Mapping[str, ItemRecord | None], next_offset: int) -> set[str]:
        """Take in changes of `items`. Returns the items that may not be listed any more, those whose time ended
        included."""
        catalogue, now_ms = self._catalogue, _now_ms()
        catalogue.next_offset = max(catalogue.next_offset, next_offset)
        gone = catalogue.turned(now_ms) | (catalogue.put(changes, now_ms) if changes else set())
        self._metrics.unlisted_items.set(len(catalogue.unlisted(now_ms)))
        return gone

    def _note(self, number: int, renewed: Sequence[RenewedList], offsets: Offsets) -> None:
        """The brokers have these lists."""
        lists = self._lists[number]
        if lists is not None:
            delivered = {one.user: one.last._replace(offset=offsets.of_users[one.user]) for one in renewed}
            lists.put(delivered, offsets.ranges[number], _now_ms())


def _now_ms() -> int:
    return int(time.time() * 1000)
