"""In-memory backends with the contracts of the real ones, for tests and benchmarks."""
