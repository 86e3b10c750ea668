"""The soak: the demo's load for hours, and what grows under it."""
