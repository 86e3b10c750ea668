"""The demo's result: the table at its end, and whether the loop closed [P]."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from centinela_local.demo.story import Performance, Story


@dataclass(frozen=True)
class Summary:
    """What a run came to. ``shortfalls`` names what did not happen; the loop closed where it is empty."""

    transactions: int
    verdicts: int
    dead_letters: int
    missing: int
    repeated: int
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
        before, during, after = (_ap(value) for value in (self.performance.before, self.performance.during, self.performance.after))
        return [
            ("transactions in", f"{self.transactions:,}"),
            ("verdicts out", f"{self.verdicts:,}"),
            ("dead letters", f"{self.dead_letters:,}"),
            ("missing / repeated verdicts", f"{self.missing:,} / {self.repeated:,}"),
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


def summarize(story: Story, *, transactions: int, verdicts: int, dead_letters: int, missing: int, repeated: int,
              requests: int, failed_requests: int, seconds: float) -> Summary:
    """The result of a run, with everything that keeps it from being a closed loop."""
    shortfalls = [*_loop_shortfalls(story)]
    if missing or repeated or verdicts + dead_letters != transactions:
        shortfalls.append(f"the audit does not reconcile: {transactions} transactions, {verdicts} verdicts, {dead_letters} dead letters, "
                          f"{missing} missing, {repeated} repeated")
    if not requests:
        shortfalls.append("no request was made to the gateway")
    if failed_requests:
        shortfalls.append(f"{failed_requests} of {requests} requests to the gateway failed")
    return Summary(transactions=transactions, verdicts=verdicts, dead_letters=dead_letters, missing=missing, repeated=repeated,
                   performance=story.performance, retrains=len(story.trainings), swaps=story.swaps, requests=requests,
                   failed_requests=failed_requests, seconds=seconds, shortfalls=tuple(shortfalls))


def _loop_shortfalls(story: Story) -> list[str]:
    if story.first_version is None:
        return ["no first champion was promoted"]
    if not story.drift_requests:
        return ["drift requested no retrain"]
    new = story.new_version
    if new is None:
        outcomes = ", ".join(f"{t.outcome} ({t.reason})" for t in story.trainings[1:]) or "no training ended"
        return [f"no new version was promoted: {outcomes}"]
    found = [f"{replica} does not serve version {new}" for replica in sorted(story.waiting_replicas(new))]
    if not story.performance.recovered:
        p = story.performance
        found.append(f"average precision did not recover: {_ap(p.before)} before, {_ap(p.during)} during, {_ap(p.after)} after")
    return found


def _ap(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.2f}"
