"""The demo that `amberdb demo` runs, and its data."""
