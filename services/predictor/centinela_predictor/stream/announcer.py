"""Terminal blocks: what a partition tells the others of its terminals and of how far it is in event time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from centinela.features.keys import MISSING_ID, Hashes, Int64s
from centinela.kafka.port import Outgoing
from centinela.topics import TERMINAL_ACTIVITY
from centinela_predictor.state.partition_store import PartitionStores
from centinela_predictor.state.terminal_activity import IDLE, Block, pack_block
from centinela_predictor.state.terminal_feed import TerminalFeed
from centinela_predictor.state.written_position import position_header
from centinela_predictor.stream.outgoing import Batch
from centinela_predictor.stream.owned_partition import OwnedPartition


class Announcer:
    """Makes the terminal blocks of this process, and hands each to its own feed too.

    Args:
        stores: Knows the incarnation of ``transactions``.
        writer: Identifies this process in its blocks.
    """

    def __init__(self, feed: TerminalFeed, stores: PartitionStores, writer: int) -> None:
        self._feed = feed
        self._stores = stores
        self._writer = writer
        self._sequence = 0

    def activity(self, batch: Batch, owned: OwnedPartition) -> Outgoing:
        """The block of *batch*."""
        part = batch.columns.take(np.flatnonzero(batch.columns.terminals != MISSING_ID))
        block = self._block(batch.watermark, part.terminals, part.times, part.ids)
        return self._announce(batch.partition, owned, block, batch.next_offset)

    def idle(self, owned_partitions: Mapping[int, OwnedPartition]) -> list[Outgoing]:
        """A block for each partition that is idle and has not been announced so."""
        return [
            self._announce(number, owned, self._idle_block(owned.quiet_end), owned.quiet_end)
            for number, owned in owned_partitions.items()
            if owned.quiet_end is not None and owned.announced != (IDLE, owned.quiet_end)
        ]

    def _idle_block(self, end: int) -> Block:
        none = np.zeros(0, np.uint64)
        return self._block(IDLE, none, np.zeros(0, np.int64), none)._replace(end=end)

    def _block(self, watermark: int, terminals: Hashes, times: Int64s, ids: Hashes) -> Block:
        self._sequence += 1
        return Block(watermark, self._writer, self._sequence, terminals, times, ids)

    def _announce(self, number: int, owned: OwnedPartition, block: Block, position: int) -> Outgoing:
        self._feed.committing(number, block)
        owned.announced = block.watermark, block.end
        headers = (position_header(self._stores.topic_id, position),)
        return Outgoing(TERMINAL_ACTIVITY.name, pack_block(block), b"%d" % number, headers, number)
