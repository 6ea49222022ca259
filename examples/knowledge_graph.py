"""A knowledge graph: who works where, since when, and the path between two entities."""

from datetime import UTC, datetime, timedelta

import amberdb
from amberdb.graph import KnowledgeGraph, export_jsonl, import_jsonl

now = datetime.now(UTC)

with amberdb.open("graph.amber") as db:
    graph = KnowledgeGraph(db, functional=["works_at"])  # one employer at a time
    graph.add_entity("lin", "person", observations=["likes tea"])
    for name, kind in (("acme", "company"), ("初创公司", "company"), ("杭州", "city")):
        graph.add_entity(name, kind)

    last_year = now - timedelta(days=365)
    graph.relate("lin", "works_at", "acme", valid_from=now - timedelta(days=900), told_by="cv")
    graph.relate("lin", "works_at", "初创公司", valid_from=last_year, told_by="letter")
    graph.relate("初创公司", "located_in", "杭州")

    print("now:", graph.neighbours("lin"))
    assert graph.neighbours("lin") == ["初创公司"]
    then = graph.facts("lin", as_of=now - timedelta(days=500))
    print("then:", [fact["target"] for fact in then])
    print(" -> ".join(graph.shortest_path("lin", "杭州") or ["no path"]))
    print("facts of work:", [hit.document["fact"] for hit in graph.search_facts("works")])
    print("entities with tea:", [hit.id for hit in graph.search("tea")])

    lines = export_jsonl(graph, "memory.jsonl")  # as the MCP memory server has it
    copy = KnowledgeGraph(db, name="copy")
    report = import_jsonl(copy, "memory.jsonl")
    print(f"{lines} lines; new: {report.entities + report.relations}, known: {report.same}")
    assert not report.broken
    print(copy.delete_entity("初创公司"), "relations went with it")
