"""The engines that each group of rows compares.

Invariants:
- lmdb + hnswlib comes before AmberDB, whose ef is set to that of the hand-made graph.
"""

from bench.engines.amber import AmberEngine
from bench.engines.amber_search import AmberFlat, AmberHybrid, AmberText
from bench.engines.chroma import ChromaPeer
from bench.engines.engine import Engine
from bench.engines.fts5 import Fts5Peer
from bench.engines.lancedb import LanceTextPeer, LanceVectorPeer
from bench.engines.lmdb import LmdbPeer
from bench.engines.lmdb_hnswlib import LmdbHnswlibPeer
from bench.engines.lmdb_numpy import LmdbNumpyPeer
from bench.engines.rocksdb import RocksPeer
from bench.engines.search_engine import TextEngine, VectorEngine
from bench.engines.sqlite import SqlitePeer
from bench.engines.sqlite_vec import SqliteVecByEntityPeer, SqliteVecPeer
from bench.engines.stratadb import StrataPeer, StrataStandardPeer
from bench.engines.zvec import ZvecPeer

ENGINES: tuple[type[Engine], ...] = (
    AmberEngine,
    SqlitePeer,
    LmdbPeer,
    RocksPeer,
    StrataPeer,
    StrataStandardPeer,
)
TEXT_ENGINES: tuple[type[TextEngine], ...] = (AmberText, Fts5Peer, LanceTextPeer)
VECTOR_ENGINES: tuple[type[VectorEngine], ...] = (
    LmdbHnswlibPeer,
    AmberHybrid,
    LmdbNumpyPeer,
    SqliteVecPeer,
    SqliteVecByEntityPeer,
    ChromaPeer,
    LanceVectorPeer,
    ZvecPeer,
)
FLAT_ENGINES: tuple[type[VectorEngine], ...] = (AmberFlat, LmdbNumpyPeer)
"""Exact search of all vectors, without a graph."""
