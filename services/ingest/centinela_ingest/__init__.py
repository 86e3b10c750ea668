"""Accepts transactions and labels: HTTP, files and a simulator, into Kafka."""
