"""How well text search finds the right documents: `python -m bench.quality`."""
