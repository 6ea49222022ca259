"""amberdb.guide(): how to use AmberDB, as text for a model that writes programs.

Invariants:
- The text is guide.md beside this module, and is read when it is asked for.
"""

from amberdb._public import public


@public
def guide() -> str:
    """How to use AmberDB, in Markdown, for the context of a coding assistant: opening, filters,
    search, values, errors, what to do and what not, and three programs that run.

        print(amberdb.guide())

    `amberdb init` writes the same text as AGENTS.md.
    """
    from importlib.resources import files

    return (files("amberdb") / "guide.md").read_text(encoding="utf-8")
