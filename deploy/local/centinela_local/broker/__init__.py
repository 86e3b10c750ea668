"""An Apache Kafka for this machine: embedded, in Docker, or one that is given."""
