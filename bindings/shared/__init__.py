"""What several systems share: argument checks, queries, search input, tokens, clocks, files."""
