"""What an operator does to a running platform: reconcile, redrive, grant rights."""
