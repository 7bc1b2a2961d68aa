"""Damaged inputs in large numbers, by seed: ``python -m tests.fuzz`` (``make fuzz``), and a short run in the suite."""
