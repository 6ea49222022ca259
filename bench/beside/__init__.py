"""What the table "Beside others" of the README says of AmberDB and its neighbours, run.

    python -m bench.beside                     the systems that are installed here
    python -m bench.beside --json FILE chroma  one of them

    stores    AmberDB, SQLite, Chroma, mem0 and the MCP memory server behind one interface
    checks    a kill, a search in Chinese, a transaction, two processes, a deletion
    writer    the process that is killed, or that writes beside another one
    mcp.mjs   the MCP memory server's own class, over lines of JSON

Chroma and mem0 are the packages `chromadb` and `mem0ai`; the server is `npm install
@modelcontextprotocol/server-memory`, whose directory AMBERDB_BESIDE_NPM names.

Invariants:
- Each system has its defaults. mem0's embedder is replaced by one that needs no network, and its
  directory by one of the check.
"""
