"""Makes faults happen to the log: its groups, its topics, and how producers write to it."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from confluent_kafka import KafkaException  # noqa: TID251 - a client of the tests' own
from confluent_kafka.admin import AdminClient  # noqa: TID251
from confluent_kafka.cimpl import NewPartitions  # noqa: TID251

from centinela.groups import ARCHIVE, DRIFT, STREAM, TRAINER
from centinela_local.testing.temporary_stack import within
from tests.support.faultrun.inject import send_signal
from tests.support.faultrun.inject_files import FileInjector
from tests.support.faultrun.sending import CODEC, CODECS, KafkaSender, Unit
from tests.support.faultrun.stack import PREDICTORS
from tests.support.faultrun.watch import Happened, await_end

_MEMBERS = {
    STREAM.name: PREDICTORS,
    TRAINER.name: ("trainer",),
    DRIFT.name: ("drift",),
    ARCHIVE.name: ("archive",),
}
_OFTEN = (5, 1, 1, 1)
_FIRST = ("terminal-activity", "feature-panes")
_LAST = ("transactions",)
"""The order in which a topic may grow: ``services/predictor/README.md``."""
_MOST_PARTITIONS = 8
_EMPTY_WITHIN_S = 60.0


@dataclass(kw_only=True)
class FullInjector(FileInjector):
    """With the faults of the log.

    Attributes:
        sender: What writes the load to Kafka.
    """

    sender: KafkaSender

    def offsets_deleted(self, happened: Happened, chance: random.Random) -> None:
        [group] = chance.choices([*_MEMBERS], _OFTEN)
        members, frozen = _MEMBERS[group], chance.random() < 0.5
        happened.what = (
            f"{'SIGSTOP' if frozen else 'SIGTERM'} {' and '.join(members)} until group {group} is empty, delete its"
            f" offsets, {'SIGCONT' if frozen else 'start'}"
        )
        admin = self._admin()
        with self._out_of_the_group(members, frozen):
            happened.hit = within(_EMPTY_WITHIN_S, lambda: _deleted(admin, group))

    def codecs_mixed(self, happened: Happened, _: random.Random) -> None:
        happened.what = f"records by {', '.join(CODECS)} in turn for {happened.fault.hold_s:.1f} s"
        self.sender.codecs = CODECS
        await_end(happened.fault.hold_s)
        self.sender.codecs = (CODEC,)

    def timestamps_in_another_unit(self, happened: Happened, chance: random.Random) -> None:
        unit: Unit = chance.choice(("s", "us"))
        happened.what = f"every fifth record's time stamp in {unit}, not ms, for {happened.fault.hold_s:.1f} s"
        self.sender.foreign_unit = unit
        await_end(happened.fault.hold_s)
        self.sender.foreign_unit = None

    def partitions_added(self, happened: Happened, chance: random.Random) -> None:
        admin = self._admin()
        topics = admin.list_topics(timeout=30).topics
        counts = {name: len(topic.partitions) for name, topic in topics.items() if not name.startswith("__")}
        order = growth_order(counts, chance)
        happened.what = f"partitions doubled, one topic after another: {', '.join(order)}"
        for name in order:
            request = admin.create_partitions([NewPartitions(name, 2 * counts[name])], operation_timeout=30)
            request[name].result(60)

    @contextmanager
    def _out_of_the_group(self, members: Sequence[str], frozen: bool) -> Iterator[None]:
        pids = [self._running(name) for name in members]
        for name, pid in zip(members, pids, strict=True):
            if frozen:
                send_signal(pid, signal.SIGSTOP)
            else:
                self.stack.supervisor.stop(name)
        try:
            yield
        finally:
            for name, pid in zip(members, pids, strict=True):
                if frozen:
                    send_signal(pid, signal.SIGCONT)
                else:
                    self.stack.supervisor.start(name)

    def _admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.stack.servers, "log_level": 0})


def _deleted(admin: AdminClient, group: str) -> bool:
    """Whether *group* could be deleted; it cannot while it has members, or while its coordinator moves."""
    with suppress(KafkaException, TimeoutError):
        admin.delete_consumer_groups([group], request_timeout=10)[group].result(20)
        return True
    return False


def growth_order(counts: dict[str, int], chance: random.Random) -> Sequence[str]:
    """The topics that can still grow: what must grow first, the others by chance, then ``transactions``."""
    growing = [name for name, count in sorted(counts.items()) if 2 * count <= _MOST_PARTITIONS]
    between = [name for name in growing if name not in (*_FIRST, *_LAST)]
    chance.shuffle(between)
    return [
        *(name for name in _FIRST if name in growing),
        *between,
        *(name for name in _LAST if name in growing),
    ]
