"""Transactions: several collections in one commit, or none."""

import amberdb
from amberdb import ConflictError

with amberdb.open("transactions.amber") as db:
    accounts = db.collection("account")
    ledger = db.collection("ledger")
    accounts.put_many([{"id": "ann", "coins": 10}, {"id": "bob", "coins": 0}])

    def pay(payer: str, payee: str, coins: int) -> None:
        with db.transaction() as tx:  # one writer at a time; reads see its own writes
            for name, change in ((payer, -coins), (payee, coins)):
                account = tx["account"].get(name)
                assert account is not None
                tx["account"].update(name, {"coins": account["coins"] + change})
                if account["coins"] + change < 0:
                    raise ValueError(f"{name} has only {account['coins']} coins")
            tx["ledger"].put({"payer": payer, "payee": payee, "coins": coins})

    before = len(ledger)
    pay("ann", "bob", 7)
    try:
        pay("ann", "bob", 7)
    except ValueError as error:
        print("nothing happened:", error)

    print(accounts.get("ann"), accounts.get("bob"))
    assert accounts.get("ann") == {"id": "ann", "coins": 3}
    assert accounts.get("bob") == {"id": "bob", "coins": 7}
    assert len(ledger) == before + 1

    # Without a transaction: write only if nobody else has written since.
    seen = accounts.record("ann")
    accounts.update("ann", {"coins": 4})
    try:
        accounts.update("ann", {"coins": 99}, if_version=seen.version)
    except ConflictError as error:
        print("read it again:", error)
