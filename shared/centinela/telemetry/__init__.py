"""Logs, metrics, health and correlation, alike in every process."""
