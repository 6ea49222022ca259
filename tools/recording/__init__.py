"""A recording of a command in a terminal, as an animated SVG.

    capture    the command in a pseudo terminal: styled lines, and when each came
    drawing    the SVG

Invariants:
- A picture is made of one real run: lines and their order are its own; only pauses are changed.
"""
