"""Whether the local stack is ready, and what it waits for."""
