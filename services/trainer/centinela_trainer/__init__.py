"""Archives verdicts and labels, trains, evaluates, gates and registers models."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("centinela-trainer")
