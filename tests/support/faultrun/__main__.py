"""``python -m tests.support.faultrun``: one long run by hand."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from pathlib import Path

from centinela_local.paths import CHECKOUT
from centinela_local.processes.interrupts import interruptible
from centinela_local.processes.ports import steady_ports
from tests.support.faultrun.run import Options, Run
from tests.support.faultrun.stack import PORTS, FaultStack
from tests.support.faultrun.workload import Profile


def main() -> int:
    """0 where nothing was lost, doubled or wrong."""
    parser = argparse.ArgumentParser(prog="faultrun", description=__doc__)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="the same seed makes the same faults and the same load")
    parser.add_argument("--transactions", type=int, default=1_050_000, help="items sent at least")
    parser.add_argument("--rate", type=float, default=1_600.0, help="items a second at most")
    parser.add_argument("--brokers", type=int, choices=(1, 3), default=3)
    parser.add_argument("--kinds", nargs="*", default=None, help="only these, in this order")
    parser.add_argument(
        "--first-port", type=int, default=None, help=f"{PORTS} ports from here on; any free ones by default"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=15.0,
        help="seconds to wait for the recovery from a fault before the next comes",
    )
    parser.add_argument("--until", type=float, default=3_000.0, help="seconds after which no further fault comes")
    parser.add_argument("--report", type=Path, default=CHECKOUT / ".local" / "faults")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    print(
        f"seed {seed}: `make test-faults FAULTS={options.faults} SEED={seed}` makes the same faults on the same load",
        flush=True,
    )
    ports = (
        steady_ports(PORTS)
        if options.first_port is None
        else list(range(options.first_port, options.first_port + PORTS))
    )
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    stack = FaultStack(folder, ports, options.brokers, mounts=os.geteuid() == 0)
    with interruptible():
        try:
            stack.start()
            run = Run(
                stack,
                Options(
                    seed,
                    options.faults,
                    options.brokers,
                    options.rate,
                    options.transactions,
                    Profile(seed),
                    kinds=options.kinds,
                    until_s=options.until,
                    patience_s=options.patience,
                ),
                lambda line: print(line, flush=True),
            )
            judgement = run.go()
            run.report(options.report)
        finally:
            stack.keep_logs(options.report / "logs")
            stack.close()
            shutil.rmtree(folder, ignore_errors=True)
    print((options.report / "report.md").read_text())
    return 0 if judgement.clean else 1


if __name__ == "__main__":
    sys.exit(main())
