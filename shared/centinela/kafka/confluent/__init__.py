"""The Kafka port on confluent-kafka (librdkafka): the hot path."""
