"""Archives verdicts and labels, trains, evaluates, gates and registers models."""
