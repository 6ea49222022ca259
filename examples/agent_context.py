"""The context of an agent: a token budget, overflow into recall storage, archived notes."""

from collections.abc import Sequence

import amberdb
from amberdb import Document
from amberdb.context import AgentContext


def summarize(summary: str, messages: Sequence[Document]) -> str:
    """In place of a model that is asked for a summary."""
    return f"Earlier: {messages[-1]['content']}"


def count_words(text: str) -> int:
    return len(text.split())


with amberdb.open("context.amber") as db:
    context = AgentContext(db, token_budget=40, summarize=summarize, count_tokens=count_words)
    sessions = context.sessions
    sessions.set_role("tutor", system="You teach mathematics.", settings={"temperature": 0.2})
    session = sessions.create(sessions.find_or_create_user("lin"), "tutor")

    context.set_working(session, "Lin knows fractions.")
    for number in range(6):
        question = f"This is question {number} about the sum of fractions"
        answer = f"And this is answer {number}"
        turn = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        appended = context.extend(session, turn)
        if appended.moved:
            print(f"{appended.moved} messages moved to recall storage")
    messages = context.render(session)
    print(*messages, sep="\n")
    assert sum(count_words(message["content"]) for message in messages) <= 40

    (hit,) = context.external.recall_search(session, "answer 2", limit=1)
    print("recalled:", hit.document["position"], hit.document["content"])
    context.external.archival_insert(session, "Lin learns best with pictures.")
    for hit in context.external.archival_search(session, "pictures"):
        print("put by:", hit.document["content"])

    receipt = sessions.delete(session)
    print(f"{receipt.documents} documents went with the session")
