"""Whether a process works, waits or is stuck: health, progress, watchdog, deadlines."""
