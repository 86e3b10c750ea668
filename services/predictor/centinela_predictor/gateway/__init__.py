"""The HTTP gateway: a request in, a verdict out, and its record on Kafka."""
