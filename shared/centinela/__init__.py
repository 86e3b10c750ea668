"""Centinela: fraud scoring on Kafka that keeps its own model right. The library that all services share.

Start with ``events`` (what is on the wire), ``topics`` (where), ``kafka.port`` (how it is read and written) and
``features`` and ``model`` (what is computed).
"""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("centinela")
