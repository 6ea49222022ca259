"""User profiles, one document per user: docs/profiles.md."""

from amberdb.profiles.export import (
    export_json,
)
from amberdb.profiles.profiles import (
    UserProfiles,
)
from amberdb.profiles.transfer import (
    TransferReport,
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
