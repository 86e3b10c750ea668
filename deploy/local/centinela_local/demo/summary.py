"""The demo's result: the table at its end, and whether the loop closed."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from centinela_local.demo.story import Performance, Story


@dataclass(frozen=True)
class LogCounts:
    """What the audit counted: records of ``transactions``, further records of an id already seen, and the outcomes."""

    transactions: int
    duplicates: int
    verdicts: int
    dead_letters: int
    missing: int
    repeated: int
    reconciled: bool


@dataclass(frozen=True)
class SkewCounts:
    """Served vectors compared with the batch form, and values that differ; ``judged`` None: the check could not be
    made."""

    judged: int | None = None
    mismatches: int = 0


@dataclass(frozen=True)
class Summary:
    """What a run came to. ``shortfalls`` names what did not happen; the loop closed where it is empty."""

    log: LogCounts
    skew: SkewCounts
    performance: Performance
    retrains: int
    swaps: int
    requests: int
    failed_requests: int
    seconds: float
    shortfalls: tuple[str, ...]

    @property
    def closed(self) -> bool:
        return not self.shortfalls

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of each line of the table."""
        before, during, after = (
            _ap(value) for value in (self.performance.before, self.performance.during, self.performance.after)
        )
        return [
            (
                "transactions in",
                f"{self.log.transactions:,}"
                + (f", {self.log.duplicates:,} of them duplicates" if self.log.duplicates else ""),
            ),
            ("verdicts out", f"{self.log.verdicts:,}"),
            ("dead letters", f"{self.log.dead_letters:,}"),
            ("missing / repeated verdicts", f"{self.log.missing:,} / {self.log.repeated:,}"),
            (
                "skew",
                (
                    "not checked"
                    if self.skew.judged is None
                    else f"{self.skew.mismatches:,} mismatches in {self.skew.judged:,} served vectors"
                ),
            ),
            ("average precision before / during / after", f"{before} / {during} / {after}"),
            ("retrains", str(self.retrains)),
            ("swaps", str(self.swaps)),
            ("requests to the gateway", f"{self.requests:,}"),
            ("failed requests", str(self.failed_requests)),
            ("time", f"{self.seconds:.0f} s"),
        ]

    def as_dict(self) -> dict[str, object]:
        """For ``summary.json``."""
        return {**asdict(self), "closed": self.closed}


def summarize(
    story: Story, log: LogCounts, skew: SkewCounts, *, requests: int, failed_requests: int, seconds: float
) -> Summary:
    """The result of a run, with everything that keeps it from being a closed loop."""
    shortfalls = _loop_shortfalls(story)
    if not log.reconciled:
        shortfalls.append(
            f"the audit does not reconcile: {log.transactions} transactions, {log.verdicts} verdicts,"
            f" {log.dead_letters} dead letters, {log.missing} missing, {log.repeated} repeated"
        )
    if skew.mismatches:
        shortfalls.append(f"{skew.mismatches} served values differ from the batch form's: see `centinela skew`")
    if not requests:
        shortfalls.append("no request was made to the gateway")
    if failed_requests:
        shortfalls.append(f"{failed_requests} of {requests} requests to the gateway failed")
    return Summary(
        log=log,
        skew=skew,
        performance=story.performance,
        retrains=len(story.retrainings),
        swaps=story.swaps,
        requests=requests,
        failed_requests=failed_requests,
        seconds=seconds,
        shortfalls=tuple(shortfalls),
    )


def _loop_shortfalls(story: Story) -> list[str]:
    if story.first_version is None:
        return ["no first champion was promoted"]
    if not story.drift_requests:
        return ["drift requested no retrain"]
    new = story.new_version
    if new is None:
        outcomes = ", ".join(f"{t.outcome} ({t.reason})" for t in story.retrainings) or "no retraining ended"
        return [f"no new version was promoted: {outcomes}"]
    shortfalls = [f"{replica} does not serve version {new}" for replica in sorted(story.waiting_replicas(new))]
    if not story.performance.recovered:
        p = story.performance
        shortfalls.append(
            f"average precision did not recover: {_ap(p.before)} before, {_ap(p.during)} during, {_ap(p.after)} after"
        )
    return shortfalls


def _ap(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"
