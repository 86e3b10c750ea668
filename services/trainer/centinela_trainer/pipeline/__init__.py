"""The stages of ``dvc repro``: training on files, without services."""
