"""The command line `amberdb`: docs/cli.md."""
