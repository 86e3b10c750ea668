"""Model bundles: what the trainer registers and the predictor serves."""
