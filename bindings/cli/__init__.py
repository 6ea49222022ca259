"""The command line `amberdb`: one module per verb or group of verbs. docs/cli.md."""
