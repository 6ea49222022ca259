"""Programs that make files of the repository from its sources: `make llms`, `make recording`."""
