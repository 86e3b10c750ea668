"""How a process starts, drains and ends."""
