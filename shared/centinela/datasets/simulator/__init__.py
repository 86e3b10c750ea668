"""A deterministic stream of card transactions with fraud, late labels and drift to order.

After the Fraud Detection Handbook (Le Borgne et al.), chapter 3, implemented from its description: vectorised, and any
day can be made without the days before it.
"""

from centinela.datasets.simulator.profile import Drift, Profile, parse_drift
from centinela.datasets.simulator.simulation import COLUMNS, Simulation

__all__ = ["COLUMNS", "Drift", "Profile", "Simulation", "parse_drift"]
