"""Compares served feature vectors with the same features computed in batch."""
