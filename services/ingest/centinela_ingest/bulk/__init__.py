"""Sending many records at a pace: replay of files and simulated days."""
