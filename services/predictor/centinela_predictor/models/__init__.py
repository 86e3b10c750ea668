"""The models in service: loading, swapping, routing, scoring and explaining."""
