"""Centinela: fraud scoring on Kafka that keeps its own model right. The shared library."""
