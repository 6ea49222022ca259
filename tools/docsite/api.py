"""Pages of the public names, made from their signatures and docstrings; griffe reads the sources.

Invariants:
- A page has the names of a package's `__all__`, and the public members of each.
- Of the packages `amberdb` alone is imported, so no extra has to be installed.
"""

from collections.abc import Iterator
from pathlib import Path

import griffe

import amberdb
from tools.docsite.docstrings import markdown
from tools.docsite.gather import ROOT

PACKAGES = {
    "amberdb": "The database",
    "amberdb.aio": "The database in an event loop",
    "amberdb.memory": "Layered memory",
    "amberdb.context": "Agent context",
    "amberdb.graph": "Knowledge graph",
    "amberdb.chat": "Chat buffer",
    "amberdb.events": "Agent events",
    "amberdb.profiles": "User profiles",
    "amberdb.series": "Time series",
    "amberdb.privacy": "What is held of a person",
    "amberdb.move": "Moving a database",
    "amberdb.ship": "Shipping to a bucket",
    "amberdb.sql": "Stores on SQL servers",
    "amberdb.telemetry": "Metrics",
    "amberdb.inspector": "What a database holds, for people",
    "amberdb.server": "The HTTP server",
    "amberdb.mcp": "The MCP server",
}

INTRODUCTION = (
    "Every public name, made from the sources. How the parts work together is in "
    "[the public names](../api.md), the rules of filters in [queries](../queries.md)."
)

PARTS_OF_COLLECTION = {"ReadableCollection", "WritableCollection"}
"""Base classes whose methods are all described at Collection."""

COLUMNS = 100


def write_reference(folder: Path) -> None:
    """Writes a page for each package, and an index of all names."""
    root = griffe.load("amberdb", search_paths=[ROOT / "src"], resolve_aliases=True)
    assert isinstance(root, griffe.Module)
    folder.mkdir(parents=True, exist_ok=True)
    index = ["# API reference", "", INTRODUCTION, ""]
    for package, title in PACKAGES.items():
        module = root if package == "amberdb" else root[package.removeprefix("amberdb.")]
        members = [module[name] for name in exported(module) if not name.startswith("_")]
        members.sort(key=_rank)
        page = "\n".join(_package_page(package, title, module, members))
        (folder / f"{package}.md").write_text(page, encoding="utf-8")
        links = " ".join(f"[`{each.name}`]({package}.md#{anchor(each.name)})" for each in members)
        index += [f"## [{package}]({package}.md)", "", f"{title}: {links}", ""]
    (folder / "index.md").write_text("\n".join(index), encoding="utf-8")


def exported(module: griffe.Module) -> list[str]:
    """The names of `__all__`. That of `amberdb` is made at run time, so it is asked."""
    if module.path == "amberdb":
        return [str(name) for name in vars(amberdb)["__all__"]]
    return [str(name) for name in module.exports or []]


def _rank(member: griffe.Object | griffe.Alias) -> int:
    """Functions, then classes, then types and values, then errors; within each as exported."""
    if member.name.endswith(("Error", "Warning")):
        return 3
    return 0 if member.is_function else 1 if member.is_class else 2


def anchor(heading: str) -> str:
    return heading.lower().replace(".", "")


def _package_page(
    package: str, title: str, module: griffe.Module, members: list[griffe.Object | griffe.Alias]
) -> Iterator[str]:
    yield f"# {package}\n\n{title}.\n"
    if module.docstring:
        yield markdown(module.docstring.value)
    for member in members:
        thing = member.final_target if isinstance(member, griffe.Alias) else member
        yield f"\n## {member.name}\n"
        yield from _described(member.name, thing)


def _described(name: str, thing: griffe.Object) -> Iterator[str]:
    if isinstance(thing, griffe.Class):
        yield from _class(name, thing)
    elif isinstance(thing, griffe.Function):
        yield _fence(_signature(name, thing))
        yield _text(thing)
    elif isinstance(thing, griffe.Module):
        yield _text(thing)
    else:
        value = thing.value if isinstance(thing, griffe.Attribute) else None
        yield _fence(f"{name} = {value}" if value is not None else name)
        yield _text(thing)


def _class(name: str, thing: griffe.Class) -> Iterator[str]:
    bases = [str(base) for base in thing.bases]
    yield _fence(_constructor(name, thing) + (f"    # is a {', '.join(bases)}" if bases else ""))
    yield _text(thing)
    if name in PARTS_OF_COLLECTION:
        yield "Its methods are described at [Collection](#collection).\n"
        return
    fields: list[str] = []
    for member in thing.all_members.values():
        inner = member.final_target if isinstance(member, griffe.Alias) else member
        if inner.name.startswith("_") or not inner.docstring:
            continue
        if isinstance(inner, griffe.Function):
            yield f"\n### {name}.{inner.name}\n"
            yield _fence(_signature(inner.name, inner))
            yield _text(inner)
        elif isinstance(inner, griffe.Attribute):
            said = " ".join(inner.docstring.value.split()) if inner.docstring else ""
            kind = f": `{inner.annotation}`" if inner.annotation else ""
            fields.append(f"- `{inner.name}`{kind}{'. ' if said else ''}{said}")
    if fields:
        yield f"\n### Attributes of {name}\n"
        yield "\n".join(fields) + "\n"


def _constructor(name: str, thing: griffe.Class) -> str:
    made = thing.all_members.get("__init__")
    target = made.final_target if isinstance(made, griffe.Alias) else made
    if not isinstance(target, griffe.Function):
        return f"class {name}"
    return "class " + _signature(name, target, returns=False)


def _signature(name: str, thing: griffe.Function, returns: bool = True) -> str:
    """The signature on one line, or with a line for each parameter where that is too long."""
    parameters = list(_parameters(thing))
    end = f" -> {thing.returns}" if returns and thing.returns is not None else ""
    line = f"{name}({', '.join(parameters)}){end}"
    if len(line) <= COLUMNS:
        return line
    inner = "".join(f"    {parameter},\n" for parameter in parameters)
    return f"{name}(\n{inner}){end}"


def _parameters(thing: griffe.Function) -> Iterator[str]:
    kinds = griffe.ParameterKind
    has_star = False
    for parameter in thing.parameters:
        if parameter.name in {"self", "cls"}:
            continue
        mark = "*" if parameter.kind is kinds.var_positional else ""
        mark = "**" if parameter.kind is kinds.var_keyword else mark
        if parameter.kind is kinds.keyword_only and not has_star:
            has_star = True
            yield "*"
        has_star = has_star or mark == "*"
        text = mark + parameter.name
        if parameter.annotation is not None:
            text += f": {parameter.annotation}"
        if parameter.default is not None and not mark:
            text += f" = {parameter.default}"
        yield text


def _fence(code: str) -> str:
    return f"```py\n{code}\n```\n"


def _text(thing: griffe.Object) -> str:
    return markdown(thing.docstring.value) if thing.docstring else ""
