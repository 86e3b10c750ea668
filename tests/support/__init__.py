"""What tests, long runs and benchmarks share: worlds, oracles, processes and clients of their own."""
