"""Sees promotions in the registry and announces them on Kafka."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("centinela-registry-watcher")
