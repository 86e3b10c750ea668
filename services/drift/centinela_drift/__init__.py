"""Watches performance and drift, and asks for retraining."""
