"""Monitors performance and drift, and requests retraining."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("centinela-drift")
