"""Accepts transactions and labels: HTTP, files and a simulator, into Kafka."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("centinela-ingest")
