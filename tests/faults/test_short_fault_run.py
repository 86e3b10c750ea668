"""Two minutes of faults on a stack of its own: nothing lost, doubled or wrong. The long run by hand: ``make
test-faults``."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from centinela_local.broker.jars import can_run_broker
from centinela_local.processes.ports import steady_ports
from tests.support.faultrun.plan import QUICK
from tests.support.faultrun.run import Options, Run
from tests.support.faultrun.stack import PORTS, FaultStack
from tests.support.faultrun.workload import Profile

SEED = int(os.environ.get("CENTINELA_FAULTS_SEED", "7"))
PROFILE = Profile(SEED, per_day=3_000, users=900, terminals=300, jumps={4: 3.0, 8: 12.0, 12: -1.0})


@pytest.mark.timeout(1_800)
def test_what_was_acknowledged_has_one_outcome_and_the_windows_of_a_fault_free_run(tmp_path: Path) -> None:
    assert can_run_broker(), "this test starts brokers of its own: a JDK is needed"
    print(f"seed {SEED}; CENTINELA_FAULTS_SEED changes it")
    stack = FaultStack(tmp_path / "stack", steady_ports(PORTS), brokers=1, mounts=False)
    try:
        stack.start()
        run = Run(
            stack,
            Options(
                SEED,
                faults=len(QUICK),
                brokers=1,
                rate=700,
                transactions=45_000,
                profile=PROFILE,
                kinds=QUICK,
                drain_s=60,
            ),
            print,
        )
        judgement = run.go()
        run.report(tmp_path / "report")
    finally:
        stack.close()

    assert judgement.clean, (tmp_path / "report" / "report.md").read_text()
    assert judgement.notes["rows with a fraud in a terminal's window"]
