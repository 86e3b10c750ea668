"""The Kafka port on kafka-python: everything else."""
