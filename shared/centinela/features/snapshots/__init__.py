"""Feature state on disk and in shared storage."""
