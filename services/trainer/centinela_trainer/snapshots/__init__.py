"""Training sets as folders that DVC knows, and the lineage from a verdict to them."""
