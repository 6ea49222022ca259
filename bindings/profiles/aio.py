"""User profiles for an event loop: docs/aio.md."""

from collections.abc import Mapping
from typing import Any, final

from amberdb import Document, Transaction
from amberdb.aio.face import Face, reads, writes
from amberdb.aio.system import opens
from amberdb.profiles import profiles


@final
class UserProfiles(Face):
    """The async face of amberdb.profiles.UserProfiles; from open_user_profiles()."""

    get = reads(profiles.UserProfiles.get)
    update = writes(profiles.UserProfiles.update)
    put = writes(profiles.UserProfiles.put)
    count_conversation = writes(profiles.UserProfiles.count_conversation)
    delete = writes(profiles.UserProfiles.delete)
    undo = writes(profiles.UserProfiles.undo)
    recent = reads(profiles.UserProfiles.recent)
    find = reads(profiles.UserProfiles.find)
    search = reads(profiles.UserProfiles.search)
    history = reads(profiles.UserProfiles.history)

    async def save(
        self,
        user_id: str,
        changes: Mapping[str, Any] | None = None,
        *,
        tx: Transaction | None = None,
        **more: Any,
    ) -> Document:
        """Creates the profile or merges the changes into it; the profile after that. None as a
        value is stored, amberdb.REMOVE removes the field. Raises InvalidDocumentError."""
        saved: Document = await self.call(
            "write" if tx is None else "transaction",
            lambda own: own.save(user_id, changes, tx=tx, **more),
        )
        return saved

    async def count(self) -> int:
        """The number of profiles."""
        return await self.call("read", len)


open_user_profiles = opens(profiles.UserProfiles, UserProfiles)
