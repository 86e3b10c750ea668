"""Runs the whole loop on one machine: broker, MLflow, services, demo."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("centinela-local")
