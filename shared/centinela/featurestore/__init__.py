"""Feast on Centinela's terms [A]: its stores with event time kept, its definitions applied, served vectors pushed to
it.

Feast's own metrics module turns prometheus_client to its multi-process mode, in this process where it comes first and,
by two variables, in all that this process starts. Metrics here are each process's own: so it comes second, and the
variables go.
"""

import os

import prometheus_client  # noqa: F401

_unset = [name for name in ("PROMETHEUS_MULTIPROCESS_DIR", "PROMETHEUS_MULTIPROC_DIR") if name not in os.environ]

import feast.metrics  # noqa: E402, F401

for _name in _unset:
    os.environ.pop(_name, None)
