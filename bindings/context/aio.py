"""Agent context for an event loop: docs/aio.md."""

from typing import final

from amberdb.aio.face import Face, reads, writes
from amberdb.aio.system import opens
from amberdb.context import context, external, sessions


@final
class Sessions(Face):
    """The async face of amberdb.context.Sessions; `context.sessions`."""

    create_user = writes(sessions.Sessions.create_user)
    find_or_create_user = writes(sessions.Sessions.find_or_create_user)
    user = reads(sessions.Sessions.user)
    find_user = reads(sessions.Sessions.find_user)
    users = reads(sessions.Sessions.users)
    delete_user = writes(sessions.Sessions.delete_user)
    create = writes(sessions.Sessions.create)
    get = reads(sessions.Sessions.get)
    of = reads(sessions.Sessions.of)
    delete = writes(sessions.Sessions.delete)
    purge = writes(sessions.Sessions.purge)
    set_role = writes(sessions.Sessions.set_role)
    role = reads(sessions.Sessions.role)
    roles = reads(sessions.Sessions.roles)
    set_setting = writes(sessions.Sessions.set_setting)
    setting = reads(sessions.Sessions.setting)


@final
class ExternalMemory(Face):
    """The async face of amberdb.context.ExternalMemory; `context.external`."""

    recall = reads(external.ExternalMemory.recall)
    recall_search = reads(external.ExternalMemory.recall_search)
    archival_insert = writes(external.ExternalMemory.archival_insert)
    archival = reads(external.ExternalMemory.archival)
    archival_search = reads(external.ExternalMemory.archival_search)
    archival_delete = writes(external.ExternalMemory.archival_delete)


@final
class AgentContext(Face):
    """The async face of amberdb.context.AgentContext; from open_agent_context()."""

    set_system = writes(context.AgentContext.set_system)
    set_working = writes(context.AgentContext.set_working)
    part = reads(context.AgentContext.part)
    set_token_budget = writes(context.AgentContext.set_token_budget)
    append = writes(context.AgentContext.append)
    extend = writes(context.AgentContext.extend)
    queue = reads(context.AgentContext.queue)
    render = reads(context.AgentContext.render)
    overflow = writes(context.AgentContext.overflow)

    @property
    def sessions(self) -> Sessions:
        """Users, sessions, roles and settings."""
        return Sessions(self.threads, lambda: self.inner().sessions)

    @property
    def external(self) -> ExternalMemory:
        """Recall storage and archival storage."""
        return ExternalMemory(self.threads, lambda: self.inner().external)


open_agent_context = opens(context.AgentContext, AgentContext)
