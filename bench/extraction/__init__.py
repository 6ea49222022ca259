"""What RuleExtractor keeps and destroys, and what a fact costs: python -m bench.extraction."""
