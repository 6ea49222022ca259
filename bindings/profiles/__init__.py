"""User profiles, one document per user: docs/profiles.md."""

from amberdb.profiles.profiles import (
    UserProfiles,
)
from amberdb.profiles.transfer import (
    TransferReport,
    export_json,
    import_json,
    import_sqlite,
)

__all__ = [
    "UserProfiles",
    "TransferReport",
    "export_json",
    "import_json",
    "import_sqlite",
]
