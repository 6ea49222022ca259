"""Timing, budgets, the report, and what a row needs to run."""
