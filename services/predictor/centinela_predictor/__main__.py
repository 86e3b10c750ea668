"""``python -m centinela_predictor gateway|stream``."""

from __future__ import annotations

import os
import sys

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")


def main(arguments: list[str]) -> int:
    """Run the role that *arguments* name until SIGTERM or SIGINT; the process's exit code."""
    if arguments not in (["gateway"], ["stream"]):
        print("usage: python -m centinela_predictor gateway|stream", file=sys.stderr)
        return 2
    from centinela.service import start
    from centinela_predictor.settings import PredictorSettings

    role = arguments[0]
    settings, stop = start(PredictorSettings, f"predictor-{role}")
    if role == "gateway":
        from centinela_predictor.gateway_process import run_gateway

        return run_gateway(settings, stop)

    from centinela_predictor.stream_process import run_stream

    return run_stream(settings, stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
