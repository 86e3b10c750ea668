"""The model bundle: what the trainer registers and the predictors load."""
