"""Layered memory for an event loop: docs/aio.md."""

from typing import final

from amberdb.aio.face import Face, reads, writes
from amberdb.aio.system import opens
from amberdb.memory import memory


@final
class Memory(Face):
    """The async face of amberdb.memory.Memory; from open_memory()."""

    remember = writes(memory.Memory.remember)
    remember_many = writes(memory.Memory.remember_many)
    apply = writes(memory.Memory.apply)
    update = writes(memory.Memory.update)
    delete = writes(memory.Memory.delete)
    undo = writes(memory.Memory.undo)
    forget = writes(memory.Memory.forget)
    get = reads(memory.Memory.get)
    profile = reads(memory.Memory.profile)
    events = reads(memory.Memory.events)
    recall = reads(memory.Memory.recall)
    history = reads(memory.Memory.history)
    logs = reads(memory.Memory.logs)


open_memory = opens(memory.Memory, Memory)
