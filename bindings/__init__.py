"""What stands on the engine: the command line, import and export, and the demo.

    cli, cli_*           the verbs             importer, exporter   JSON lines in and out
    demo, demo_*         the demo              json_text            documents as JSON text

Invariants:
- `import amberdb` loads nothing of this package.
"""
