"""The pages of `amberdb ui`: docs/inspector.md. Needs the extra `ui`.

    guard    Host, origin, token, security headers
    visit    one request: language, theme, database, and the page as the answer
    browse activity care changing    the pages; their templates are in templates/

Invariants:
- Pages are HTML that works without a script: links and forms. Scripts, from static/ alone, add
  swaps without a reload (htmx), shortcuts, charts (uPlot), the map and the stream of changes.
"""

from amberdb.inspector.web.app import application, serve
from amberdb.inspector.web.options import InspectorOptions

__all__ = ["application", "serve", "InspectorOptions"]
