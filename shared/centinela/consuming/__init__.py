"""Consumer loops: what is read, handled and committed together."""
