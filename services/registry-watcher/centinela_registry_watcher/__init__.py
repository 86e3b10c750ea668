"""Sees promotions in the registry and announces them on Kafka."""
