"""Layered memory: remember, recall, update with a reason, forget."""

import amberdb
from amberdb.memory import Memory, RuleExtractor

with amberdb.open("memory.amber") as db:
    memory = Memory(db, extract=RuleExtractor())

    said = "用户今天告诉我他是一名软件工程师，毕业于北京大学。他下午参加了技术分享会。"
    for outcome in memory.remember("user123", said, auto_extract=True):
        print(outcome.action, outcome.memory_layer, outcome.reason)
    (party,) = memory.remember("user123", "公司年会定在周五", memory_layer="event")
    memory.update("event", party.memory_id, content="公司年会改到了周六", reason="时间变了")

    print([fact["content"] for fact in memory.profile("user123")])
    print([event["content"] for event in memory.events("user123", limit=50)])
    found = memory.recall("技术分享", entity_id="user123")
    assert found[0].document["category"] == "meeting"
    print([entry["reason"] for entry in memory.logs(party.memory_id)])

    receipt = memory.forget("user123")
    print(
        f"forgotten: {receipt.profile} facts, {receipt.events} events, {receipt.logs} log entries"
    )
    assert memory.recall("技术分享") == []
