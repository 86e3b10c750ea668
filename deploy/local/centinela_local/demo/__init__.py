"""The demo: a new fraud pattern starts, and the loop closes by itself."""
