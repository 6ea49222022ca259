"""User profiles for an event loop: docs/aio.md."""

from collections.abc import Mapping
from typing import Any, final

from amberdb import Document
from amberdb.aio.face import Face, reads, writes
from amberdb.aio.system import opens
from amberdb.profiles import profiles


@final
class UserProfiles(Face):
    """The async face of amberdb.profiles.UserProfiles; from open_user_profiles()."""

    get = reads(profiles.UserProfiles.get)
    count_conversation = writes(profiles.UserProfiles.count_conversation)
    delete = writes(profiles.UserProfiles.delete)
    recent = reads(profiles.UserProfiles.recent)

    async def save(
        self, user_id: str, changes: Mapping[str, Any] | None = None, **more: Any
    ) -> Document:
        """Creates the profile or merges the changes into it; the profile after that. None as a
        value is stored, amberdb.REMOVE removes the field. Raises InvalidDocumentError."""
        saved: Document = await self.call("write", lambda own: own.save(user_id, changes, **more))
        return saved

    async def count(self) -> int:
        """The number of profiles."""
        return await self.call("read", len)


open_user_profiles = opens(profiles.UserProfiles, UserProfiles)
