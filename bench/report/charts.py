"""Which measures are in which plot, and against whom."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """One line of a plot: a measure of the kept results, and what it is called there."""

    row: str
    title: str
    label: str


@dataclass(frozen=True)
class Chart:
    """One plot and its table."""

    name: str
    heading: str
    about: str
    measures: tuple[Measure, ...]
    peers: tuple[str, ...]


STORES = ("sqlite", "lmdb", "rocksdict", "strata")

CHARTS = (
    Chart(
        "reads",
        "Reading documents",
        "100,000 documents with three indexes; each read is decoded.",
        (
            Measure("get", "get by id, decoded", "get"),
            Measure("get_many", "100 documents by id, decoded", "get_many of 100"),
            Measure("newest", "newest 50 of one entity, decoded", "newest 50"),
            Measure("scan", "50 documents from an id on, decoded", "scan of 50"),
            Measure("mixed", "YCSB E: 95 % scans, 5 % puts", "YCSB E"),
        ),
        STORES,
    ),
    Chart(
        "writes",
        "Durable writes",
        "Each commit is synced, by every engine.",
        (
            Measure("put", "single durable put, 1 thread", "put"),
            Measure("put8", "durable puts, 8 threads, wall time per put", "put, 8 threads"),
            Measure("put_many", "put_many of 1,000, per document", "put_many of 1,000"),
            Measure("update", "update one field, durable", "update"),
            Measure(
                "delete_expired",
                "delete_many of the expired, one in 1,000 of 100,000, per call",
                "delete_many",
            ),
            Measure("mixed", "YCSB A: half reads, half updates", "YCSB A"),
        ),
        STORES,
    ),
    Chart(
        "opening",
        "Opening",
        "In a fresh process, with the first read.",
        (
            Measure(
                "open", "open of 100,000 documents and a get, after a clean close", "after close()"
            ),
            Measure("open", "the same after SIGKILL, 15,000 documents in the log", "after kill -9"),
        ),
        STORES,
    ),
    Chart(
        "text",
        "Search by words",
        "The best 10 of 100,000 texts, decoded; and what storing them takes.",
        (
            Measure("bm25", "BM25 top 10 of 100,000, common words, decoded", "common words"),
            Measure("bm25", "BM25 top 10 of 100,000, rare words, decoded", "rare words"),
            Measure("text_ingest", "durable commits of 1,000 texts, per document", "storing texts"),
        ),
        ("fts5", "lancedb"),
    ),
    Chart(
        "vectors",
        "Search by vectors",
        "The nearest 10 of 100,000 vectors of 384 numbers, recall@10 of at least 0.98; and what "
        "storing them takes, durable and searchable at once.",
        (
            Measure("vector", "nearest 10 of 100,000 x 384, decoded", "of all"),
            Measure(
                "vector_entity",
                "nearest 10 within one entity, a thousandth of 100,000 x 384, decoded",
                "of 100, by filter",
            ),
            Measure(
                "vector_entity",
                "within one entity, a twentieth of 100,000 x 384",
                "of 5,000, by filter",
            ),
            Measure(
                "vector_ingest",
                "commits of 1,000 vectors, durable and searchable at once, per vector",
                "storing vectors",
            ),
        ),
        (
            "lmdb + hnswlib",
            "lmdb + numpy",
            "sqlite-vec",
            "sqlite-vec by entity",
            "chroma",
            "lancedb",
            "zvec",
        ),
    ),
)
