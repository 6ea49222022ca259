"""The memory systems for an event loop; events of agents are awaited as they are.

    memory = await open_memory(db, embed=embed, dim=384)
    await memory.remember("user123", "...", memory_layer="profile")

Invariants:
- Parameters, results and errors are those of the class that a face is of.
- A system is opened in a thread, since it declares its collections.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, final

import amberdb
from amberdb import Document
from amberdb.aio.database import Database
from amberdb.aio.face import Face, reads, writes
from amberdb.aio.threads import Threads
from amberdb.chat import buffer
from amberdb.chat.schedule import Schedule
from amberdb.context import context, external, sessions
from amberdb.graph import graph
from amberdb.memory import memory
from amberdb.profiles import profiles

P = ParamSpec("P")
S = TypeVar("S")
F = TypeVar("F", bound=Face)

logger = logging.getLogger("amberdb.aio")


def opens(
    make: Callable[Concatenate[amberdb.Database, P], S],
    face: Callable[[Threads, Callable[[], S]], F],
) -> Callable[Concatenate[Database, P], Coroutine[Any, Any, F]]:
    """What makes `face` of what `make` makes over a database."""

    @wraps(make)
    async def opened(db: Database, /, *args: P.args, **kwargs: P.kwargs) -> F:
        found = await db.run(make, db.blocking, *args, **kwargs)
        return face(db.threads, lambda: found)

    return opened


@final
class Memory(Face):
    """Layered memory: docs/memory.md."""

    remember = writes(memory.Memory.remember)
    apply = writes(memory.Memory.apply)
    update = writes(memory.Memory.update)
    delete = writes(memory.Memory.delete)
    forget = writes(memory.Memory.forget)
    get = reads(memory.Memory.get)
    profile = reads(memory.Memory.profile)
    events = reads(memory.Memory.events)
    recall = reads(memory.Memory.recall)
    logs = reads(memory.Memory.logs)


@final
class ChatBuffer(Face):
    """Turns of conversations on their way to a sink: docs/chat.md."""

    save_chat = writes(buffer.ChatBuffer.save_chat)
    flush = writes(buffer.ChatBuffer.flush)
    flush_due = writes(buffer.ChatBuffer.flush_due)
    load_recent_context = reads(buffer.ChatBuffer.load_recent_context)
    get_stats = reads(buffer.ChatBuffer.get_stats)


@final
class UserProfiles(Face):
    """One document per user: docs/profiles.md."""

    get = reads(profiles.UserProfiles.get)
    count_conversation = writes(profiles.UserProfiles.count_conversation)
    delete = writes(profiles.UserProfiles.delete)
    recent = reads(profiles.UserProfiles.recent)

    async def save(
        self, user_id: str, changes: Mapping[str, Any] | None = None, **more: Any
    ) -> Document:
        """Creates the profile, or merges the changes into it; as it is then. None in a map stores
        None, amberdb.REMOVE takes a field out. Raises InvalidDocumentError."""
        saved: Document = await self.call("write", lambda own: own.save(user_id, changes, **more))
        return saved

    async def count(self) -> int:
        """How many profiles there are."""
        return await self.call("read", len)


@final
class Sessions(Face):
    """Users, sessions, roles and settings of an agent context."""

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
    """Recall and archival storage of an agent context."""

    recall = reads(external.ExternalMemory.recall)
    recall_search = reads(external.ExternalMemory.recall_search)
    archival_insert = writes(external.ExternalMemory.archival_insert)
    archival = reads(external.ExternalMemory.archival)
    archival_search = reads(external.ExternalMemory.archival_search)
    archival_delete = writes(external.ExternalMemory.archival_delete)


@final
class AgentContext(Face):
    """What a model is shown of a session: docs/context.md."""

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
        """Its users and sessions."""
        return Sessions(self.threads, lambda: self.inner().sessions)

    @property
    def external(self) -> ExternalMemory:
        """What is not in its queues."""
        return ExternalMemory(self.threads, lambda: self.inner().external)


@final
class KnowledgeGraph(Face):
    """Entities and relations that are true for a time: docs/graph.md."""

    add_entity = writes(graph.KnowledgeGraph.add_entity)
    entity = reads(graph.KnowledgeGraph.entity)
    entities = reads(graph.KnowledgeGraph.entities)
    search = reads(graph.KnowledgeGraph.search)
    remove_observations = writes(graph.KnowledgeGraph.remove_observations)
    delete_entity = writes(graph.KnowledgeGraph.delete_entity)
    relate = writes(graph.KnowledgeGraph.relate)
    end_relation = writes(graph.KnowledgeGraph.end_relation)
    delete_relation = writes(graph.KnowledgeGraph.delete_relation)
    delete_relations = writes(graph.KnowledgeGraph.delete_relations)
    relation = reads(graph.KnowledgeGraph.relation)
    relations = reads(graph.KnowledgeGraph.relations)
    facts = reads(graph.KnowledgeGraph.facts)
    neighbours = reads(graph.KnowledgeGraph.neighbours)
    k_hop = reads(graph.KnowledgeGraph.k_hop)
    shortest_path = reads(graph.KnowledgeGraph.shortest_path)


open_memory = opens(memory.Memory, Memory)
open_chat_buffer = opens(buffer.ChatBuffer, ChatBuffer)
open_user_profiles = opens(profiles.UserProfiles, UserProfiles)
open_agent_context = opens(context.AgentContext, AgentContext)
open_knowledge_graph = opens(graph.KnowledgeGraph, KnowledgeGraph)


async def keep_flushing(
    buffer: ChatBuffer,
    schedule: Schedule | None = None,
    *,
    batch_size: int = 200,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Coroutine[Any, Any, object]] = asyncio.sleep,
) -> None:
    """Flushes at the times of the schedule, until its task is cancelled or the database is closed.
    What fails is logged and tried again."""
    schedule = schedule or Schedule()
    while True:
        now = datetime.fromtimestamp(clock(), UTC)
        await sleep((schedule.next_after(now) - now).total_seconds())
        try:
            await buffer.flush_due(batch_size)
        except amberdb.ClosedError:
            return
        except Exception:
            logger.exception("a flush failed, and is tried again at its time")
