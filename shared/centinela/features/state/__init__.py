"""The state that windowed features are computed from, in arrays."""
