"""The functions on the server: each does in one round trip what would be several.

    begun    the settings of a transaction that writes, the lock of the fence, and what begins it
    write<n>     writes one document of a collection, in a transaction of its own

Invariants:
- The lock of the fence is taken before a table is: PL/pgSQL reaches for a table when it executes
  the statement that names it, and each of its statements sees what was committed before that one.
- write<n> does nothing, and returns 0, when the catalog is newer than its caller's, or the document
  is not as its caller has to have it. So what it does is what a transaction would do.
- A declaration makes write<n> anew, with the fence in its hands; a call that waits meanwhile finds
  a newer catalog.
"""

from typing import Final

from amberdb.postgres.table import NOW_US, Table, lock_number

REPLACE: Final = None
INSERT: Final = 0
"""In place of the version that a document must have: any or none, and none."""
_COLUMNS_FROM: Final = 11
"""Of the arguments of write<n>."""


def fence_lock(database: str) -> int:
    """The number of the lock of the fence."""
    return lock_number(f"{database}.fence".encode())


def state_of(database: str, lsn: str) -> str:
    """The statement that reads a row of Began."""
    return (
        f'SELECT version, {NOW_US}, {lsn}, (SELECT count(*) FROM "{database}".marks) '
        f'FROM "{database}".fence'
    )


def next_lsn(database: str) -> str:
    """The expression that takes the next Lsn."""
    return f"nextval('\"{database}\".lsn')"


def begun_created(database: str) -> str:
    """The statement that creates the function begun."""
    return f"""
        CREATE FUNCTION "{database}".begun(text, boolean, OUT of_fence bigint, OUT now_us bigint,
            OUT lsn bigint, OUT marked bigint) LANGUAGE plpgsql AS $$
        BEGIN
            {_entered(database)}
            {state_of(database, next_lsn(database))} INTO of_fence, now_us, lsn, marked;
        END $$
    """


def write_dropped(table: Table) -> str:
    """The statement that drops the function of a collection."""
    return f"DROP FUNCTION IF EXISTS {table.function}"


def write_created(database: str, table: Table) -> str:
    """The statement that creates the function of a collection: it writes one document that has
    nothing beside its row, and returns the version, or 0.

    $1 milliseconds   $2 whether the commit is durable   $3 the version of the catalog
    $4 the time       $5 the version, or NULL            $6 the lock of a name, or NULL
    $7 the version that the document has, REPLACE or INSERT
    $8 its key        $9 its time of expiry              $10 the document
    and the columns of indexes, without rowids
    """
    names = new = ""
    sets = "version = lsn, updated_us = now_us, expires_us = $9, document = $10"
    for number, name in enumerate(table.columns.values(), _COLUMNS_FROM):
        sign = "~" if name in table.descending else ""
        names += f", {name}"
        new += f", ${number} || int8send({sign}lsn)"
        sets += f", {name} = ${number} || int8send({sign}d.rowid)"
    types = "text, boolean, bigint, bigint, bigint, bigint, bigint, bytea, bigint, jsonb"
    types += ", bytea" * len(table.columns)
    return f"""
        CREATE FUNCTION {table.function}({types}) RETURNS bigint LANGUAGE plpgsql AS $$
        DECLARE
            now_us bigint; lsn bigint;
        BEGIN
            {_entered(database)}
            IF $3 <> (SELECT f.version FROM "{database}".fence f) THEN
                RETURN 0;
            END IF;
            now_us := coalesce($4, {NOW_US});
            lsn := coalesce($5, {next_lsn(database)});
            IF $7 > 0 THEN
                UPDATE {table.name} d SET {sets}
                WHERE d.key = $8 AND d.version = $7 AND d.sides = 0;
            ELSE
                IF $6 IS NOT NULL THEN
                    PERFORM pg_advisory_xact_lock($6);
                END IF;
                INSERT INTO {table.name} AS d (key, rowid, version, created_us, updated_us,
                    expires_us, sides, document{names})
                VALUES ($8, lsn, lsn, now_us, now_us, $9, 0, $10{new})
                ON CONFLICT (key) DO UPDATE SET {sets}
                WHERE $7 IS NULL AND d.sides = 0 AND d.expires_us > now_us;
            END IF;
            RETURN CASE WHEN FOUND THEN lsn ELSE 0 END;
        END $$
    """


def _entered(database: str) -> str:
    return f"""
            PERFORM set_config('lock_timeout', $1, true);
            IF NOT $2 THEN
                PERFORM set_config('synchronous_commit', 'off', true);
            END IF;
            PERFORM pg_advisory_xact_lock_shared({fence_lock(database)});
    """
