"""Features: the one code that makes them for the stream, the gateway, the backfill and training. Pure but for
``store``."""
