"""Who may write: API keys and their roles, and where a process may listen without them."""
