"""Agent context for an event loop: docs/aio.md."""

from typing import Any, final

from amberdb.aio.face import Face, reads, writes
from amberdb.aio.system import opens
from amberdb.context import blocks, context, external, sessions, tools


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
    delete_role = writes(sessions.Sessions.delete_role)
    set_setting = writes(sessions.Sessions.set_setting)
    setting = reads(sessions.Sessions.setting)
    settings = reads(sessions.Sessions.settings)
    delete_setting = writes(sessions.Sessions.delete_setting)


@final
class ExternalMemory(Face):
    """The async face of amberdb.context.ExternalMemory; `context.external`."""

    recall = reads(external.ExternalMemory.recall)
    recall_search = reads(external.ExternalMemory.recall_search)
    archival_insert = writes(external.ExternalMemory.archival_insert)
    archival_insert_many = writes(external.ExternalMemory.archival_insert_many)
    archival = reads(external.ExternalMemory.archival)
    archival_search = reads(external.ExternalMemory.archival_search)
    archival_delete = writes(external.ExternalMemory.archival_delete)


@final
class Blocks(Face):
    """The async face of amberdb.context.Blocks; `context.blocks`."""

    create = writes(blocks.Blocks.create)
    get = reads(blocks.Blocks.get)
    of = reads(blocks.Blocks.of)
    append = writes(blocks.Blocks.append)
    replace = writes(blocks.Blocks.replace)
    update = writes(blocks.Blocks.update)
    delete = writes(blocks.Blocks.delete)


@final
class AgentContext(Face):
    """The async face of amberdb.context.AgentContext; from open_agent_context()."""

    set_system = writes(context.AgentContext.set_system)
    set_working = writes(context.AgentContext.set_working)
    append_working = writes(context.AgentContext.append_working)
    replace_working = writes(context.AgentContext.replace_working)
    part = reads(context.AgentContext.part)
    set_token_budget = writes(context.AgentContext.set_token_budget)
    append = writes(context.AgentContext.append)
    extend = writes(context.AgentContext.extend)
    queue = reads(context.AgentContext.queue)
    render = reads(context.AgentContext.render)
    conversation_search = reads(context.AgentContext.conversation_search)
    overflow = writes(context.AgentContext.overflow)

    @property
    def sessions(self) -> Sessions:
        """Users, sessions, roles and settings."""
        return Sessions(self.threads, lambda: self.inner().sessions)

    @property
    def blocks(self) -> Blocks:
        """Memory blocks."""
        return Blocks(self.threads, lambda: self.inner().blocks)

    @property
    def external(self) -> ExternalMemory:
        """Recall storage and archival storage."""
        return ExternalMemory(self.threads, lambda: self.inner().external)


async def run_tool(
    context: AgentContext, session_id: str, tool_call: object, *, reach: tools.Reach = "session"
) -> dict[str, Any]:
    """As amberdb.context.run_tool()."""
    return await context.call(
        "write", lambda inner: tools.run_tool(inner, session_id, tool_call, reach=reach)
    )


open_agent_context = opens(context.AgentContext, AgentContext)
