"""The readable report: its rows, its process, Evidently."""
