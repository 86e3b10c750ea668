"""Scores transactions: exactly-once stream loop and HTTP gateway on one scorer."""
