"""The HTTP API: transactions and labels in, records on Kafka out."""
