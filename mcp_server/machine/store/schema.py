"""The tables, as an ordered list of migrations. A migration, once released, never changes."""

from collections.abc import Awaitable, Callable

import aiosqlite

from mcp_server.errors import NotReady
from mcp_server.research.experiment import STATUSES, TRANSITIONS, TRIAL_STATUSES, VERIFICATIONS
from mcp_server.research.task import CATEGORIES


def _quoted(values: tuple[str, ...]) -> str:
    return ", ".join(f"'{value}'" for value in values)


_LEGAL = " OR ".join(
    f"(OLD.status = '{old}' AND NEW.status IN ({_quoted(new)}))" for old, new in TRANSITIONS.items() if new
)

GUARDS = {
    "legal_transitions": f"""
    CREATE TRIGGER legal_transitions BEFORE UPDATE OF status ON experiments
    WHEN NOT (OLD.status = NEW.status OR {_LEGAL})
    BEGIN SELECT RAISE(ABORT, 'illegal transition'); END
    """,
    "ended_is_immutable": """
    CREATE TRIGGER ended_is_immutable BEFORE UPDATE ON trials
    WHEN OLD.status NOT IN ('queued', 'training')
    BEGIN SELECT RAISE(ABORT, 'an ended trial is immutable'); END
    """,
}
"""Triggers that refuse what no transition may do."""

RUNS = (
    """
    CREATE TABLE runs (
        tag TEXT PRIMARY KEY COLLATE NOCASE,
        branch TEXT NOT NULL,
        base_commit TEXT NOT NULL,
        task TEXT NOT NULL,
        device_kind TEXT NOT NULL,
        platform TEXT NOT NULL,
        created_at REAL NOT NULL,
        manual_mode TEXT,
        manual_reason TEXT NOT NULL DEFAULT '',
        manual_ratio REAL,
        manual_temperature REAL,
        manual_at REAL,
        next_number INTEGER NOT NULL DEFAULT 1,
        listed INTEGER NOT NULL DEFAULT 0
    ) STRICT
    """,
    "CREATE INDEX runs_by_age ON runs (created_at)",
    """
    CREATE TABLE workspaces (
        tag TEXT NOT NULL REFERENCES runs (tag),
        agent TEXT NOT NULL COLLATE NOCASE,
        created_at REAL NOT NULL,
        PRIMARY KEY (tag, agent)
    ) STRICT
    """,
)
"""Runs, and the workspaces that agents have in them."""

EXPERIMENTS = (
    f"""
    CREATE TABLE experiments (
        id TEXT PRIMARY KEY,
        tag TEXT NOT NULL REFERENCES runs (tag),
        number INTEGER NOT NULL,
        agent TEXT NOT NULL,
        commit_sha TEXT NOT NULL,
        base_commit TEXT NOT NULL,
        hypothesis TEXT NOT NULL,
        category TEXT NOT NULL CHECK (category IN ({_quoted(CATEGORIES)})),
        request TEXT NOT NULL,
        registered_at REAL NOT NULL,
        status TEXT NOT NULL CHECK (status IN ({_quoted(STATUSES)})),
        parent_id TEXT REFERENCES experiments (id),
        description TEXT NOT NULL,
        source TEXT NOT NULL,
        diff_summary TEXT NOT NULL,
        lines_added INTEGER NOT NULL,
        lines_removed INTEGER NOT NULL,
        changes TEXT NOT NULL,
        metrics TEXT NOT NULL DEFAULT '{{}}',
        origin TEXT NOT NULL DEFAULT 'measured' CHECK (origin IN ('measured', 'reported')),
        value REAL,
        delta REAL,
        best_before REAL,
        near_miss INTEGER NOT NULL DEFAULT 0,
        reason TEXT NOT NULL DEFAULT '',
        lesson TEXT NOT NULL DEFAULT '',
        decided INTEGER,
        decided_at REAL,
        branch_commit TEXT,
        numbers TEXT,
        accepted_loss REAL NOT NULL DEFAULT 0,
        runs INTEGER NOT NULL DEFAULT 0,
        squares REAL NOT NULL DEFAULT 0,
        dof INTEGER NOT NULL DEFAULT 0,
        promising_after INTEGER,
        verification TEXT NOT NULL DEFAULT 'reported' CHECK (verification IN ({_quoted(VERIFICATIONS)})),
        sandboxed INTEGER NOT NULL DEFAULT 0,
        UNIQUE (tag, number)
    ) STRICT
    """,
    # An equal request returns the earlier experiment only while that one is open.
    "CREATE UNIQUE INDEX open_requests ON experiments (tag, request) WHERE decided IS NULL",
    "CREATE UNIQUE INDEX experiments_by_decision ON experiments (tag, decided) WHERE decided IS NOT NULL",
    "CREATE INDEX experiments_by_status ON experiments (tag, status, number)",
    "CREATE INDEX experiments_by_category ON experiments (tag, category, status)",
    "CREATE INDEX keeps ON experiments (tag, decided) WHERE status = 'keep'",
    "CREATE INDEX near_misses ON experiments (tag, delta) WHERE near_miss",
    "CREATE INDEX replicated ON experiments (tag, squares, dof) WHERE dof > 0",
    "CREATE INDEX experiments_by_commit ON experiments (tag, commit_sha)",
    "CREATE INDEX promising ON experiments (tag, promising_after)",
    "CREATE INDEX children ON experiments (parent_id, base_commit)",
    "CREATE INDEX lessons ON experiments (tag, decided) WHERE lesson <> ''",
    GUARDS["legal_transitions"],
)
"""Experiments, and the guard on their status."""

MOVES = (
    """
    CREATE TABLE moves (
        experiment_id TEXT NOT NULL REFERENCES experiments (id),
        tag TEXT NOT NULL,
        commit_sha TEXT NOT NULL,
        base_commit TEXT NOT NULL,
        parent_id TEXT REFERENCES experiments (id),
        PRIMARY KEY (experiment_id, commit_sha)
    ) STRICT
    """,
    "CREATE INDEX moves_by_commit ON moves (tag, commit_sha)",
    "CREATE INDEX moves_by_parent ON moves (parent_id, base_commit)",
)
"""The commits that experiments had before they were put on another base, and what those were made from."""

TRIALS = (
    f"""
    CREATE TABLE trials (
        id TEXT PRIMARY KEY,
        experiment_id TEXT NOT NULL REFERENCES experiments (id),
        attempt INTEGER NOT NULL,
        seed INTEGER NOT NULL,
        device_type TEXT NOT NULL,
        status TEXT NOT NULL CHECK (status IN ({_quoted(TRIAL_STATUSES)})),
        came_from TEXT NOT NULL,
        commit_sha TEXT NOT NULL,
        queued_at REAL NOT NULL,
        device TEXT,
        worker_pid INTEGER,
        started_at REAL,
        ended_at REAL,
        exit_code INTEGER,
        metrics TEXT NOT NULL DEFAULT '{{}}',
        error TEXT NOT NULL DEFAULT '',
        stop_requested INTEGER NOT NULL DEFAULT 0,
        verification TEXT NOT NULL DEFAULT 'reported' CHECK (verification IN ({_quoted(VERIFICATIONS)})),
        sandboxed INTEGER NOT NULL DEFAULT 0,
        wall_seconds REAL NOT NULL DEFAULT 0,
        cpu_seconds REAL NOT NULL DEFAULT 0,
        UNIQUE (experiment_id, attempt)
    ) STRICT
    """,
    # At most one live trial an experiment: a second `train` re-attaches, whichever server asked.
    "CREATE UNIQUE INDEX live_trials ON trials (experiment_id) WHERE status IN ('queued', 'training')",
    "CREATE INDEX queue ON trials (device_type, queued_at) WHERE status = 'queued'",
    "CREATE INDEX training ON trials (device) WHERE status = 'training'",
    GUARDS["ended_is_immutable"],
    """
    CREATE TABLE turns (
        tag TEXT NOT NULL,
        agent TEXT NOT NULL,
        taken INTEGER NOT NULL,
        PRIMARY KEY (tag, agent)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX turns_in_order ON turns (taken)",
)
"""Trials, of which an ended one never changes, and when each agent last had a turn on a device."""


FINGERPRINTS = (
    """
    CREATE TABLE fingerprints (
        tag TEXT NOT NULL,
        number INTEGER NOT NULL,
        digest TEXT NOT NULL,
        sketch TEXT NOT NULL,
        knobs TEXT NOT NULL,
        PRIMARY KEY (tag, number),
        FOREIGN KEY (tag, number) REFERENCES experiments (tag, number)
    ) STRICT
    """,
    "CREATE INDEX fingerprints_by_digest ON fingerprints (tag, digest, number)",
    """
    CREATE TABLE likenesses (
        tag TEXT NOT NULL,
        key INTEGER NOT NULL,
        number INTEGER NOT NULL,
        PRIMARY KEY (tag, key, number)
    ) STRICT, WITHOUT ROWID
    """,
    "CREATE INDEX likenesses_of ON likenesses (tag, number)",
)
"""What each experiment changed, so that equal and similar changes are found, and the knobs that it ran with."""


FLEET = (
    """
    CREATE TABLE fleet (
        gpu_id TEXT PRIMARY KEY,
        host TEXT NOT NULL,
        name TEXT NOT NULL,
        gpu_index INTEGER NOT NULL,
        gpu_name TEXT NOT NULL,
        vram_mb REAL NOT NULL,
        registered_at REAL NOT NULL,
        seen_at REAL NOT NULL,
        experiment_id TEXT REFERENCES experiments (id),
        lent_host TEXT,
        lent_at REAL,
        lent_until REAL,
        UNIQUE (host, name)
    ) STRICT
    """,
    "CREATE INDEX loans ON fleet (experiment_id)",
)
"""Devices of outside agents, and what they are lent to."""


async def first_tables(connection: aiosqlite.Connection) -> None:
    """Create the tables of the first version."""
    for statement in (*RUNS, *EXPERIMENTS, *MOVES, *TRIALS, *FINGERPRINTS, *FLEET):
        await connection.execute(statement)


EFFORT = (
    "ALTER TABLE trials ADD COLUMN effort_seconds REAL NOT NULL DEFAULT 0",
    "ALTER TABLE trials ADD COLUMN waited_seconds REAL NOT NULL DEFAULT 0",
    "ALTER TABLE trials ADD COLUMN counted_by TEXT NOT NULL DEFAULT '' CHECK (counted_by IN ('', 'cgroup', 'sampled'))",
    "ALTER TABLE trials ADD COLUMN starved INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX starved_trials ON trials (experiment_id) WHERE starved = 1",
)
"""What a training took as its worker counted it, and whether others had too much of its device."""


async def effort_of_trials(connection: aiosqlite.Connection) -> None:
    """Add the columns for effort; trials of before have none."""
    for statement in EFFORT:
        await connection.execute(statement)


async def displaceable_keeps(connection: aiosqlite.Connection) -> None:
    """Let a kept experiment lose its place: the guard of the first version knew no way from `keep`."""
    await connection.execute("DROP TRIGGER legal_transitions")
    await connection.execute(GUARDS["legal_transitions"])


ROWS = """
    CREATE TABLE row_scores (
        trial_id TEXT PRIMARY KEY REFERENCES trials (id),
        scores TEXT NOT NULL
    ) STRICT, WITHOUT ROWID
"""
"""What trials scored by row, apart from `trials`: only a verdict reads it."""


async def scores_by_row(connection: aiosqlite.Connection) -> None:
    """Add the table of scores by row; trials of before have none."""
    await connection.execute(ROWS)


async def awaited_bases(connection: aiosqlite.Connection) -> None:
    """Say in the numbers of an experiment that it waits for a run of its base: the reason alone said so before."""
    await connection.execute(
        "UPDATE experiments SET numbers = json_set(numbers, '$.awaits_base', json('true'))"
        " WHERE numbers IS NOT NULL AND reason LIKE '%: no verdict before % is run once more: %'"
    )


MIGRATIONS: list[Callable[[aiosqlite.Connection], Awaitable[None]]] = [
    first_tables,
    effort_of_trials,
    displaceable_keeps,
    scores_by_row,
    awaited_bases,
]


async def migrate(connection: aiosqlite.Connection) -> None:
    """Bring the store up to date in one transaction; raises NotReady if a newer version made it."""
    if await _version(connection) == len(MIGRATIONS):
        return
    await connection.execute("BEGIN IMMEDIATE")
    try:
        version = await _version(connection)  # another process may have upgraded it meanwhile
        if version > len(MIGRATIONS):
            raise NotReady(
                f"The store has schema {version} and this version of autoresearch-mcp knows {len(MIGRATIONS)}",
                "Upgrade autoresearch-mcp, or set AUTORESEARCH_STATE to another folder",
            )
        for migration in MIGRATIONS[version:]:
            await migration(connection)
        await connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        await connection.execute("COMMIT")
    except BaseException:
        await connection.execute("ROLLBACK")
        raise


async def _version(connection: aiosqlite.Connection) -> int:
    async with connection.execute("PRAGMA user_version") as cursor:
        row = await cursor.fetchone()
    assert row is not None
    return int(row[0])
