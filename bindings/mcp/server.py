"""The server of the Model Context Protocol: tools, resources, prompts and subscriptions of a store.

    async with memory_server(path, options) as server:    an mcp.server.Server

Invariants:
- Whatever a call raises becomes an answer or an error of the protocol; the server goes on.
- A tool's error is an answer with `isError`, which the model reads; an unknown resource or prompt
  is an error of the request.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, final

import amberdb
import mcp.types as wire
from amberdb import AmberError
from amberdb.mcp import graph_tools, memory_tools, resources
from amberdb.mcp.answers import Answer, ToolError
from amberdb.mcp.options import McpOptions
from amberdb.mcp.prompts import PROMPTS, PromptText, prompt_named
from amberdb.mcp.schemas import schema_of
from amberdb.mcp.store import OpenedStore
from amberdb.mcp.subscriptions import Subscriptions
from amberdb.mcp.tool import Tool, message_of, named
from mcp.server import Server, ServerRequestContext
from mcp.shared.exceptions import MCPError

NAME: Final = "amberdb-memory"
_NOT_FOUND: Final = -32002
"""The code of the protocol for a resource that is not there."""
_LOG: Final = logging.getLogger("amberdb.mcp")
_INSTRUCTIONS: Final = (
    "Long-term memory that outlives the conversation. The graph tools (create_entities, "
    "search_nodes, ...) keep entities, observations and relations."
)
_INSTRUCTIONS_FULL: Final = (
    " remember and recall keep single facts and events, with dates, in any language. Recall before "
    "answering from earlier sessions; update what has changed; forget only when the user asks."
)

Context = ServerRequestContext[Any, Any]


@asynccontextmanager
async def memory_server(
    path: str | None, options: McpOptions
) -> AsyncGenerator[tuple[Server[Any], OpenedStore]]:
    """A server and its store, which is closed at the end. Without a path the database is the one in
    the user's data directory. It is opened at once; where that fails, the reason is logged and each
    call tries again."""
    opened = OpenedStore(path, options)
    handlers = Handlers(opened, options)
    following = asyncio.create_task(handlers.subscriptions.follow())
    opening = asyncio.create_task(_open(opened))
    try:
        yield handlers.server(), opened
    finally:
        for task in (opening, following):
            task.cancel()
        await asyncio.gather(opening, following, return_exceptions=True)
        await opened.close()


@final
class Handlers:
    """The answers to the requests of the protocol."""

    def __init__(self, opened: OpenedStore, options: McpOptions) -> None:
        self._opened = opened
        self._options = options
        self.subscriptions = Subscriptions(opened)
        full = memory_tools.TOOLS if options.tools == "full" else ()
        self._tools: tuple[Tool[Any], ...] = (*graph_tools.TOOLS, *full)

    def server(self) -> Server[Any]:
        """A server with these handlers."""
        is_full = self._options.tools == "full"
        return Server(
            NAME,
            version=amberdb.__version__,
            title="AmberDB memory",
            instructions=_INSTRUCTIONS + (_INSTRUCTIONS_FULL if is_full else ""),
            get_tool_input_schema=self._input_schema,
            on_list_tools=self.list_tools,
            on_call_tool=self.call_tool,
            on_list_resources=self.list_resources,
            on_list_resource_templates=self.list_templates,
            on_read_resource=self.read_resource,
            on_subscribe_resource=self.subscribe,
            on_unsubscribe_resource=self.unsubscribe,
            on_subscriptions_listen=self.subscriptions.listen,
            on_list_prompts=self.list_prompts,
            on_get_prompt=self.get_prompt,
        )

    # -- tools -------------------------------------------------------------------------------

    async def list_tools(self, _: Context, __: object) -> wire.ListToolsResult:
        """The tools; with --read-only those that read."""
        shown = [each for each in self._tools if not (self._options.read_only and each.writes)]
        return wire.ListToolsResult(tools=list(map(_listed, shown)))

    async def call_tool(
        self, _: Context, params: wire.CallToolRequestParams
    ) -> wire.CallToolResult:
        """Calls a tool; its errors are answers."""
        try:
            tool = named(self._tools, params.name, read_only=self._options.read_only)
            arguments = tool.checked(params.arguments or {})
            answer: Answer = await self._opened.run(lambda store: tool.run(store, arguments))
        except Exception as error:
            text = _text(message_of(error, params.name))
            return wire.CallToolResult(content=[text], is_error=True)
        notes = [] if answer.note is None else [_text(answer.note)]
        return wire.CallToolResult(
            content=[_text(answer.text), *notes], structured_content=answer.content
        )

    def _input_schema(self, name: str) -> dict[str, Any] | None:
        found = [each for each in self._tools if each.name == name]
        return schema_of(found[0].arguments) if found else None

    # -- resources ---------------------------------------------------------------------------

    async def list_resources(self, _: Context, __: object) -> wire.ListResourcesResult:
        """The resources with a fixed uri."""
        return wire.ListResourcesResult(
            resources=[
                wire.Resource(
                    uri=uri,
                    name=name,
                    title=title,
                    description=description,
                    mime_type=resources.MEDIA_TYPE,
                )
                for uri, name, title, description in resources.RESOURCES
            ]
        )

    async def list_templates(self, _: Context, __: object) -> wire.ListResourceTemplatesResult:
        """The resources of entities."""
        template = wire.ResourceTemplate(
            uri_template=resources.ENTITY + "{name}",
            name="entity",
            title="Entity",
            description="An entity by name or alias, with its relations and their times",
            mime_type=resources.MEDIA_TYPE,
        )
        return wire.ListResourceTemplatesResult(resource_templates=[template])

    async def read_resource(
        self, _: Context, params: wire.ReadResourceRequestParams
    ) -> wire.ReadResourceResult:
        """The text of a resource. Raises MCPError."""
        try:
            text = await self._opened.run(partial(resources.read, uri=params.uri))
        except Exception as error:
            raise MCPError(_NOT_FOUND, message_of(error, params.uri)) from None
        contents = wire.TextResourceContents(
            uri=params.uri, mime_type=resources.MEDIA_TYPE, text=text
        )
        return wire.ReadResourceResult(contents=[contents])

    async def subscribe(self, ctx: Context, params: wire.SubscribeRequestParams) -> Any:
        """Subscribes a session to a resource. Raises MCPError."""
        try:
            await self.subscriptions.subscribe(ctx, params.uri)
        except (ToolError, AmberError, OSError) as error:
            raise MCPError(wire.INTERNAL_ERROR, message_of(error, params.uri)) from None
        return wire.EmptyResult()

    async def unsubscribe(self, ctx: Context, params: wire.UnsubscribeRequestParams) -> Any:
        """Ends a subscription."""
        self.subscriptions.unsubscribe(ctx, params.uri)
        return wire.EmptyResult()

    # -- prompts -----------------------------------------------------------------------------

    async def list_prompts(self, _: Context, __: object) -> wire.ListPromptsResult:
        """The prompts."""
        return wire.ListPromptsResult(prompts=list(map(_prompt, PROMPTS)))

    async def get_prompt(
        self, _: Context, params: wire.GetPromptRequestParams
    ) -> wire.GetPromptResult:
        """The text of a prompt. Raises MCPError."""
        try:
            prompt = prompt_named(params.name)
        except ToolError as error:
            raise MCPError(wire.INVALID_PARAMS, str(error)) from None
        text = prompt.text(self._options.tools, params.arguments or {})
        message = wire.PromptMessage(role="user", content=_text(text))
        return wire.GetPromptResult(description=prompt.description, messages=[message])


def _listed(tool: Tool[Any]) -> wire.Tool:
    return wire.Tool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=schema_of(tool.arguments),
        output_schema=schema_of(tool.result, closed=True),
        annotations=wire.ToolAnnotations(
            read_only_hint=not tool.writes,
            destructive_hint=tool.destroys,
            idempotent_hint=tool.is_idempotent,
            open_world_hint=False,
        ),
    )


def _prompt(prompt: PromptText) -> wire.Prompt:
    argument = wire.PromptArgument(
        name=prompt.argument, description=prompt.argument_description, required=False
    )
    return wire.Prompt(
        name=prompt.name,
        title=prompt.title,
        description=prompt.description,
        arguments=[argument],
    )


def _text(text: str) -> wire.TextContent:
    return wire.TextContent(type="text", text=text)


async def _open(opened: OpenedStore) -> None:
    try:
        await opened.database()
    except Exception as error:
        _LOG.warning("%s", message_of(error, "opening the database"))
