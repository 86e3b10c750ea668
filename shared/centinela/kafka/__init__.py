"""The only door to Kafka: one port (``port``), two adapters and a fake, and the consumer loop on top of it."""
