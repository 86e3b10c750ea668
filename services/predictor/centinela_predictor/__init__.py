"""Scores transactions: exactly-once stream loop and HTTP gateway on one scorer."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("centinela-predictor")
