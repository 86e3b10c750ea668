"""Makes readable reports in the background, one at a time; a report that fails is logged and stops nothing."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import structlog
from msgspec.json import encode

from centinela.times import from_ms
from centinela_drift import metrics
from centinela_drift.decision.detection import Reference
from centinela_drift.evaluator import Evaluation
from centinela_drift.reporting.report_spec import ReportSpec

_log = structlog.get_logger(__name__)


class SubprocessReporter:
    """Runs ``centinela_drift.reporting.evidently_report`` in a child process at low priority.

    Args:
        folder: Where reports go.
        archive: The archive's folder of predictions.
        manifest_path: Where the manifest of a version is.
        served_since: Event time (ms) at which a version began to score.
        timeout_s: A report that takes longer is killed.
        command: The child's command; the path of the specification is appended.
    """

    def __init__(
        self,
        folder: Path,
        archive: Path,
        manifest_path: Callable[[str], Path],
        served_since: Callable[[str], int | None],
        timeout_s: float,
        command: tuple[str, ...] = (sys.executable, "-m", "centinela_drift.reporting.evidently_report"),
    ) -> None:
        self._folder = folder
        self._archive = archive
        self._manifest_path = manifest_path
        self._served_since = served_since
        self._timeout_s = timeout_s
        self._command = command
        self._task: asyncio.Task[None] | None = None
        self._finished: str | None = None

    def begin(self, evaluation: Evaluation, reference: Reference) -> None:
        """Start a report, unless one is being made. Never raises, never waits."""
        if self.running:
            _log.info("evidently.skipped", report_id=evaluation.report.report_id, reason="another report is being made")
            return
        self._task = asyncio.create_task(self._run(evaluation, reference), name="evidently")

    @property
    def running(self) -> bool:
        """Whether a report is being made."""
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

    async def _run(self, evaluation: Evaluation, reference: Reference) -> None:
        report = evaluation.report
        try:
            spec = self._spec(evaluation, reference)
            code, errors = await self._child(spec)
        except (OSError, TimeoutError) as error:
            code, errors = -1, f"{type(error).__name__}: {error}"
        if code == 0:
            self._finished = str((self._folder / f"{report.report_id}.html").absolute())
            _log.info("evidently.made", report_id=report.report_id, path=self._finished)
        else:
            metrics.REPORT_FAILURES.inc()
            _log.warning("evidently.failed", report_id=report.report_id, code=code, detail=errors[-500:])

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

    async def _child(self, spec: Path) -> tuple[int, str]:
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
            _, errors = await asyncio.wait_for(process.communicate(), self._timeout_s)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            spec.unlink(missing_ok=True)
        return process.returncode or 0, errors.decode(errors="replace")
