"""A broker, an MLflow server or a whole stack for the time of a test."""
