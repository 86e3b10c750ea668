"""Records that could not be processed: as they are written, and as they are read back."""
