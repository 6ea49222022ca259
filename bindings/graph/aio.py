"""The knowledge graph for an event loop: docs/aio.md."""

from typing import final

from amberdb.aio.face import Face, reads, writes
from amberdb.aio.system import opens
from amberdb.graph import graph


@final
class KnowledgeGraph(Face):
    """The async face of amberdb.graph.KnowledgeGraph; from open_knowledge_graph()."""

    add_entity = writes(graph.KnowledgeGraph.add_entity)
    entity = reads(graph.KnowledgeGraph.entity)
    entities = reads(graph.KnowledgeGraph.entities)
    search = reads(graph.KnowledgeGraph.search)
    add_aliases = writes(graph.KnowledgeGraph.add_aliases)
    remove_aliases = writes(graph.KnowledgeGraph.remove_aliases)
    rename_entity = writes(graph.KnowledgeGraph.rename_entity)
    merge_entities = writes(graph.KnowledgeGraph.merge_entities)
    forget_source = writes(graph.KnowledgeGraph.forget_source)
    remove_observations = writes(graph.KnowledgeGraph.remove_observations)
    delete_entity = writes(graph.KnowledgeGraph.delete_entity)
    relate = writes(graph.KnowledgeGraph.relate)
    end_relation = writes(graph.KnowledgeGraph.end_relation)
    delete_relation = writes(graph.KnowledgeGraph.delete_relation)
    delete_relations = writes(graph.KnowledgeGraph.delete_relations)
    relation = reads(graph.KnowledgeGraph.relation)
    relations = reads(graph.KnowledgeGraph.relations)
    facts = reads(graph.KnowledgeGraph.facts)
    search_facts = reads(graph.KnowledgeGraph.search_facts)
    neighbours = reads(graph.KnowledgeGraph.neighbours)
    k_hop = reads(graph.KnowledgeGraph.k_hop)
    shortest_path = reads(graph.KnowledgeGraph.shortest_path)


open_knowledge_graph = opens(graph.KnowledgeGraph, KnowledgeGraph)
