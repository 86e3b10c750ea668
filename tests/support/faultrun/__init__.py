"""Breaks a running stack on purpose, by a seeded schedule, and proves from the log that nothing was lost, doubled or
wrong.

By hand: ``make test-faults FAULTS=100 SEED=7``. What it covers, and what it found: ``docs/reliability.md``.
"""
