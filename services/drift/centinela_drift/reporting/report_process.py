"""Makes readable reports in the background, one at a time; one that fails is logged, tried again, and stops nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog
from msgspec.json import encode

from centinela.liveness.retry import Backoff
from centinela.times import from_ms
from centinela_drift import metrics
from centinela_drift.decision.detection import Reference
from centinela_drift.evaluator import Evaluation
from centinela_drift.reporting.report_spec import ReportSpec

_log = structlog.get_logger(__name__)
ATTEMPTS = 6
LONGEST_PAUSE_S = 3600.0
MOST_PATIENCE = 8
"""A report may take so many times its limit, after it was too slow that often: on a busy machine it runs last."""


class SubprocessReporter:
    """Runs ``centinela_drift.reporting.evidently_report`` in a child process at low priority.

    Args:
        folder: Where reports go.
        archive: The archive's folder of predictions.
        manifest_path: Where the manifest of a version is.
        served_since: Event time (ms) at which a version began to score.
        timeout_s: A report that takes longer is killed, and has twice as long in its next attempt.
        command: The child's command; the path of the specification is appended.
        pause_s: Before the second of ``ATTEMPTS``; each further pause is twice as long.
    """

    def __init__(
        self,
        folder: Path,
        archive: Path,
        manifest_path: Callable[[str], Path],
        served_since: Callable[[str], int | None],
        timeout_s: float,
        command: tuple[str, ...] = (sys.executable, "-m", "centinela_drift.reporting.evidently_report"),
        pause_s: float = 60.0,
    ) -> None:
        self._folder = folder
        self._archive = archive
        self._manifest_path = manifest_path
        self._served_since = served_since
        self._timeout_s = timeout_s
        self._command = command
        self._pause_s = pause_s
        self._next: tuple[Evaluation, Reference] | None = None
        self._asked = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._finished: str | None = None

    def begin(self, evaluation: Evaluation, reference: Reference) -> None:
        """Make a report as soon as none is being made. One that waits for its turn, or for another attempt, gives way.
        Never raises, never waits."""
        self._next = evaluation, reference
        self._asked.set()
        if not self.running:
            self._task = asyncio.create_task(self._work(), name="evidently")

    @property
    def running(self) -> bool:
        """Whether a report is being made, or will be tried again."""
        return self._task is not None and not self._task.done()

    def finished(self) -> str | None:
        """Path of a report finished since the last call."""
        path = self._finished
        self._finished = None
        return path

    async def close(self) -> None:
        """Stop a report that is being made."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while self._next is not None:
            evaluation, reference = self._next
            self._next = None
            self._asked.clear()
            await self._make(evaluation, reference)

    async def _make(self, evaluation: Evaluation, reference: Reference) -> None:
        report_id = evaluation.report.report_id
        pauses = Backoff(first_s=self._pause_s, max_s=LONGEST_PAUSE_S)
        for attempt in range(ATTEMPTS):
            patience = min(2**attempt, MOST_PATIENCE)
            if await self._attempt(evaluation, reference, self._timeout_s * patience):
                return
            if attempt + 1 < ATTEMPTS:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._asked.wait(), pauses.next_s())
            if self._next is not None:
                _log.info("evidently.replaced", report_id=report_id)
                return
        _log.error("evidently.given_up", report_id=report_id, attempts=ATTEMPTS)

    async def _attempt(self, evaluation: Evaluation, reference: Reference, timeout_s: float) -> bool:
        report = evaluation.report
        try:
            spec = self._spec(evaluation, reference)
            code, errors = await self._child(spec, timeout_s)
        except TimeoutError:
            code, errors = -1, f"it took longer than {timeout_s:g} s"
        except OSError as error:
            code, errors = -1, f"{type(error).__name__}: {error}"
        if code == 0:
            self._finished = str((self._folder / f"{report.report_id}.html").absolute())
            _log.info("evidently.made", report_id=report.report_id, path=self._finished)
        else:
            metrics.REPORT_FAILURES.inc()
            _log.warning("evidently.failed", report_id=report.report_id, code=code, detail=errors[-500:])
        return code == 0

    def _spec(self, evaluation: Evaluation, reference: Reference) -> Path:
        report = evaluation.report
        self._folder.mkdir(parents=True, exist_ok=True)
        since = self._served_since(report.model_version)
        base = (self._folder / report.report_id).absolute()
        path = base.with_suffix(".spec.json")
        path.write_bytes(
            encode(
                ReportSpec(
                    report=report,
                    manifest=str(self._manifest_path(reference.version).absolute()),
                    archive=str(self._archive.absolute()),
                    served_since=report.start if since is None else from_ms(since),
                    recent=evaluation.recent.histograms.tolist(),
                    html=str(base.with_suffix(".html")),
                    json=str(base.with_suffix(".json")),
                )
            )
        )
        return path

    async def _child(self, spec: Path, timeout_s: float) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            "nice",
            "-n",
            "10",
            *self._command,
            str(spec),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            _, errors = await asyncio.wait_for(process.communicate(), timeout_s)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            spec.unlink(missing_ok=True)
        return process.returncode or 0, errors.decode(errors="replace")
