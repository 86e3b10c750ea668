"""The Feast adapter: stores that respect event time, applied definitions, and pushed vectors.

Feast's metrics module switches prometheus_client to multi-process mode: in this process if it is imported first, and,
through two variables, in every child process. Metrics here belong to one process, so prometheus_client is imported
first, and the variables are removed.
"""

import os

import prometheus_client  # noqa: F401

_unset = [name for name in ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR") if name not in os.environ]

import feast.metrics  # noqa: E402, F401

for _name in _unset:
    os.environ.pop(_name, None)
