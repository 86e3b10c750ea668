"""Answers retrain requests: training in a child process, gate, registration."""
