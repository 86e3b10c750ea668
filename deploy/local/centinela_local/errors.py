"""What can go wrong on the user's machine, each with what to do about it."""

from __future__ import annotations

from centinela.errors import CentinelaError


class ToolMissing(CentinelaError):
    """A program that must be installed is not; the message names it."""


class StartFailed(CentinelaError):
    """A process did not come up; the message says which, and where its log is."""


class PortTaken(CentinelaError):
    """Something else listens on a port; the message names it and the variable that changes it."""
