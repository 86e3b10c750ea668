"""Watches performance and drift, and asks for retraining."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("centinela-drift")
