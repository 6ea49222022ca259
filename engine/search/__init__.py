"""Full-text and vector search: segments, live rows, searchers, fusion."""
