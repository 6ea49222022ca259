"""The demo of `amberdb demo`, and its data."""
