"""What a database holds of somebody: shown to them, and forgotten. See docs/privacy.md."""

from amberdb.privacy.held import (
    held,
)
from amberdb.privacy.subject import (
    export,
    export_json,
    forget,
)

__all__ = [
    "held",
    "export",
    "export_json",
    "forget",
]
