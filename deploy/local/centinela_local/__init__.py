"""Runs the whole loop on one machine: broker, MLflow, services, demo."""
