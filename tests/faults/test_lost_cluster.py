"""A fault run whose brokers cannot be started again stops, says so, and is not clean."""

from __future__ import annotations

from pathlib import Path

import pytest

from centinela_local.errors import StartFailed
from centinela_local.processes.ports import steady_ports
from centinela_local.testing.temporary_kafka import TemporaryBroker
from tests.support.faultrun import run as faultrun
from tests.support.faultrun.plan import Kind
from tests.support.faultrun.run import Options, Run
from tests.support.faultrun.stack import PORTS, FaultStack
from tests.support.faultrun.workload import Profile


class Unrestorable(TemporaryBroker):
    """Runs until it is stopped, and never again."""

    stopped = False

    @property
    def running(self) -> bool:
        return not self.stopped

    def stop(self, grace_s: float = 0.0) -> None:
        self.stopped = True

    def launch(self) -> None:
        raise StartFailed("Kafka ended with code 1")


def run_of(folder: Path, kinds: list[Kind], said: list[str]) -> Run:
    stack = FaultStack(folder, steady_ports(PORTS), brokers=1, mounts=False)
    stack.cluster.brokers = [Unrestorable(folder / "kafka")]
    options = Options(7, 5, 1, rate=100, transactions=1_000_000, profile=Profile(7), kinds=kinds, patience_s=0.1)
    return Run(stack, options, said.append)


@pytest.mark.parametrize("kind", ["brokers_killed", "broker_killed"])
def test_a_broker_that_does_not_start_again_ends_the_run(tmp_path: Path, kind: Kind) -> None:
    said: list[str] = []
    run = run_of(tmp_path / "stack", [kind], said)
    judgement = run.go()
    run.report(tmp_path / "report")

    lost = "broker 1 of 1 did not come back; see its log"
    assert not judgement.clean
    assert judgement.violations["brokers that came back"] == [lost]
    assert said[-1] == f"STOPPED: {lost}"
    assert len(run.happened) == 1
    assert lost in (tmp_path / "report" / "report.md").read_text()


def test_brokers_that_run_and_do_not_answer_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faultrun, "SILENCE_S", 1.0)
    said: list[str] = []
    judgement = run_of(tmp_path / "stack", ["slow_consumer"], said).go()
    assert judgement.violations["brokers that came back"] == ["the brokers did not answer for 1 s"]
