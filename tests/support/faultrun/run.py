"""One run: start, load, break, settle, read back, judge, report."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from confluent_kafka import Producer  # noqa: TID251 - a client of the tests' own

from centinela_local.testing.temporary_stack import within
from tests.support.faultrun.archive_check import archived, judge_archive
from tests.support.faultrun.features import judge_features
from tests.support.faultrun.inject_log import FullInjector
from tests.support.faultrun.ledger import Ledger
from tests.support.faultrun.oracle import (
    Judgement,
    judge_answers,
    judge_label_letters,
    judge_letters,
    judge_log,
    judge_trainings,
    judge_verdicts,
    judge_versions,
    note_lateness,
)
from tests.support.faultrun.plan import Kind, schedule
from tests.support.faultrun.readback import ReadBack, read_back
from tests.support.faultrun.report import write_report
from tests.support.faultrun.sending import HttpSender, KafkaSender, Load
from tests.support.faultrun.stack import FaultStack
from tests.support.faultrun.watch import Happened, Watch
from tests.support.faultrun.workload import Profile, Workload, timestamp

SETTLE_S = 240.0
SILENCE_S = 600.0
"""Brokers that do not answer for so long are not waited for any more."""


class ClusterLost(Exception):
    """The brokers did not come back: what went on would prove nothing, and would not end."""


@dataclass(frozen=True)
class Options:
    """How a run goes.

    Attributes:
        transactions: The load goes on after the last fault until so many items were sent.
        patience_s: Longest wait for the recovery from one fault before the next comes.
        kinds: Kinds of faults in order; None: all, by the schedule of the seed.
    """

    seed: int
    faults: int
    brokers: int
    rate: float
    transactions: int
    profile: Profile
    patience_s: float = 45.0
    kinds: Sequence[Kind] | None = None
    until_s: float = 3_000.0
    drain_s: float = 10.0


class Run:
    """A run on *stack*, which is up.

    Args:
        say: Told what happens.
    """

    def __init__(self, stack: FaultStack, options: Options, say: Callable[[str], None]) -> None:
        self._stack = stack
        self._options = options
        self._say = say
        self._began = time.monotonic()
        self.ledger = Ledger()
        self.judgement = Judgement()
        self.happened: list[Happened] = []
        self._facts: dict[str, Any] = {}
        self._loaded_s = 0.0
        self._watch = Watch(stack.servers, stack.urls, round(2 * options.rate), self.clock)
        sender = KafkaSender(stack.servers, self.ledger)
        self._injector = FullInjector(stack, self.clock, self._retrain, options.drain_s, sender=sender)
        self._load = Load(
            Workload(options.profile).items(),
            self.ledger,
            sender,
            HttpSender("ingest", stack.urls["ingest"], self.ledger),
            HttpSender("gateway", stack.urls["gateway"], self.ledger),
            rate=options.rate,
            lag=lambda: self._watch.lag,
            outbox=lambda: self._watch.outbox,
            looks=lambda: self._watch.looks,
        )

    def clock(self) -> float:
        """Seconds of the run."""
        return time.monotonic() - self._began

    def go(self) -> Judgement:
        """Load and break, then judge. A run whose cluster is lost stops, and is not clean."""
        self._watch.start()
        self._load.start()
        try:
            self._load_and_break()
        except ClusterLost as lost:
            self._say(f"STOPPED: {lost}")
            self.judgement.check("brokers that came back", 1, [str(lost)])
            self._loaded_s = self.clock()
            self._load.abandon()
            self._facts = self._counts()
            return self.judgement
        finally:
            self._watch.close()
        self._judge()
        return self.judgement

    def _load_and_break(self) -> None:
        self._break()
        self._await(lambda: self._load.sent >= self._options.transactions, self._options.until_s - self.clock())
        self._loaded_s = self.clock()
        left = self._load.finish(SETTLE_S)
        self._say(f"{self._load.sent:,} sent in {self._loaded_s:.0f} s; {left} without an answer; settling")
        self.judgement.check("items with a last word", self._load.sent, [f"{left} items without"] if left else [])
        if self._load.failure is not None:
            self.judgement.check("the load itself", 1, [repr(self._load.failure)])
        calm = self._await(lambda: self._watch.lag == 0 and not self._watch.unready and self._watch.calm(), SETTLE_S)
        self.judgement.check(
            "everything ready, and no lag, in the end",
            1,
            [] if calm else [f"lag {self._watch.lag}, not ready: {self._watch.unready}"],
        )

    def _await(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether *condition* came true within *seconds*; no longer than there is a load.

        Raises:
            ClusterLost: A broker does not run, or none answers for very long.
        """
        self._require_cluster()
        ended = within(seconds, lambda: condition() or self._load.failure is not None or self._lost() is not None)
        self._require_cluster()
        return ended and condition()

    def _require_cluster(self) -> None:
        if (lost := self._lost()) is not None:
            raise ClusterLost(lost)

    def _lost(self) -> str | None:
        if numbers := self._stack.lost_brokers():
            return f"broker {' and '.join(map(str, numbers))} of {self._options.brokers} did not come back; see its log"
        if self._watch.silent_s() > SILENCE_S:
            return f"the brokers did not answer for {SILENCE_S:.0f} s"
        return None

    def report(self, folder: Path) -> None:
        """Write the report."""
        write_report(folder, self._options.seed, self._facts, self.happened, self.judgement)

    def _break(self) -> None:
        for fault in schedule(self._options.seed, self._options.faults, self._options.brokers, self._options.kinds):
            if not fault.overlaps:
                self._await(self._watch.calm, self._options.patience_s)
            time.sleep(fault.gap_s)
            happened = self._injector.inject(fault)
            self._watch.expect(happened)
            self.happened.append(happened)
            self._say(
                f"[{happened.began:6.1f} s] {fault.number:3}"
                f" {happened.what}{'' if happened.hit is not False else ' (missed its point)'}  sent"
                f" {self._load.sent:,}, lag {self._watch.lag:,}{''.join('; ' + p for p in happened.problems)}"
            )
            self._require_cluster()
            if self._load.failure is not None or self.clock() > self._options.until_s:
                return
        self._await(self._watch.calm, self._options.patience_s)

    def _judge(self) -> None:
        judgement, stack = self.judgement, self._stack
        judgement.check(
            "faults overcome",
            len(self.happened),
            (f"{h.fault.number}: {h.what}" for h in self.happened if h.recovered_s is None),
        )
        judgement.check(
            "processes that behaved",
            len(self.happened),
            (f"{h.fault.number}: {p}" for h in self.happened for p in h.problems),
        )
        judgement.attempt("what trainings wait for", self._await_trainings)
        found = read_back(stack.servers)
        self._say(
            f"read back: {len(found.log):,} records, {len(found.verdicts):,} verdicts, {len(found.letters):,} dead"
            " letters"
        )
        first = judge_log(found, self.ledger, judgement)
        note_lateness(found, first, judgement)
        judgement.attempt("verdicts", lambda: judge_verdicts(found, first, judgement))
        judgement.attempt("letters", lambda: judge_letters(found, self.ledger, first, judgement))
        judgement.attempt("letters of labels", lambda: judge_label_letters(found, judgement))
        judgement.attempt("answers", lambda: judge_answers(found, self.ledger, judgement))
        judgement.attempt(
            "versions", lambda: judge_versions(found, stack.promoted_at, self._injector.rejected, judgement)
        )
        judgement.attempt(
            "trainings", lambda: judge_trainings(found, self._injector.asked, stack.versions_by_request(), judgement)
        )
        judgement.attempt("the archive", lambda: self._judge_archive(found))
        judgement.attempt("features", lambda: judge_features(found, first, stack.layout.names, judgement))
        judgement.notes["HTTP answers"] = {
            f"{path} {status or 'none'}": count for (path, status), count in sorted(self.ledger.attempts.items())
        }
        judgement.notes["sent"] = {f"{path} {what}": count for (path, what), count in sorted(self.ledger.sent.items())}
        self._facts = {"transactions with a verdict": len(found.verdicts), **self._counts()}

    def _counts(self) -> dict[str, Any]:
        return {
            "items sent": self._load.sent,
            "faults": len(self.happened),
            "brokers": self._options.brokers,
            "seconds of load": round(self._loaded_s),
            "most records behind": self._watch.most_lag,
            "exits": dict(Counter(self._stack.exits())),
        }

    def _judge_archive(self, found: ReadBack) -> None:
        within(
            90,
            lambda: (
                len(archived(self._stack.data / "archive", "predictions")) >= len(found.verdicts)
                and len(archived(self._stack.data / "archive", "labels"))
                >= len(found.labels) - len(found.mistimed_labels)
            ),
        )
        judge_archive(self._stack.data / "archive", found, self.judgement)

    def _await_trainings(self) -> None:
        asked = set(self._injector.asked)
        within(SETTLE_S, lambda: asked <= self._stack.trainings_answered())

    def _retrain(self, reason: str) -> str:
        """Ask for a training as of event time now, as an operator does."""
        request = f"faults-{self._options.seed}-{len(self._injector.asked) + 1}"
        oldest = self.ledger.oldest_pending_ms() or self._load.event_ms
        event = {
            "version": 1,
            "request_id": request,
            "model_name": "FraudDetector",
            "requested_by": "operator",
            "as_of": timestamp(oldest),
            "reason": reason,
        }
        producer = Producer({"bootstrap.servers": self._stack.servers, "acks": "all"})
        producer.produce("retrain-requests", msgspec.json.encode(event), b"FraudDetector")
        producer.flush(30)
        return request
