"""Features of past transactions, computed in batch from the archive or a file."""
