"""The migrations of the schema, in order: a list that is only appended to."""

from __future__ import annotations

MIGRATIONS: list[tuple[str, str]] = [
    (
        "first",
        """
        CREATE TABLE run (
            id INTEGER PRIMARY KEY,
            started_ns INTEGER NOT NULL,
            boot_id TEXT NOT NULL,
            pid INTEGER NOT NULL,
            program TEXT NOT NULL
        );
        CREATE TABLE counter (
            name TEXT PRIMARY KEY,
            value INTEGER NOT NULL
        ) WITHOUT ROWID;
        CREATE TABLE producer (
            id INTEGER PRIMARY KEY,
            uid INTEGER NOT NULL,
            key TEXT NOT NULL,              -- the client's 64-bit id, 16 hexadecimal digits
            watermark INTEGER NOT NULL,     -- up to here every event is stored, refused or lost
            has_outbox INTEGER NOT NULL,
            ended INTEGER NOT NULL,
            boot_id TEXT NOT NULL,
            pid INTEGER NOT NULL,
            first_seen_ns INTEGER NOT NULL,
            last_seen_ns INTEGER NOT NULL,
            UNIQUE (uid, key)
        );
        CREATE INDEX producer_open ON producer (boot_id) WHERE ended = 0;
        CREATE TABLE refusal (              -- what clients refused, as they report it
            producer INTEGER NOT NULL REFERENCES producer (id),
            cause TEXT NOT NULL,
            events INTEGER NOT NULL,
            PRIMARY KEY (producer, cause)
        ) WITHOUT ROWID;
        CREATE TABLE event_type (
            id INTEGER PRIMARY KEY,
            name TEXT NOT NULL UNIQUE
        );
        CREATE TABLE event (
            id INTEGER PRIMARY KEY,         -- in the order of storing
            producer INTEGER NOT NULL REFERENCES producer (id),
            sequence INTEGER NOT NULL,
            ts_ns INTEGER NOT NULL,         -- the client's clock
            type INTEGER NOT NULL REFERENCES event_type (id),
            user TEXT,
            props BLOB NOT NULL,            -- msgpack map, as it came
            salt BLOB NOT NULL
        );
        CREATE INDEX event_user ON event (user, id) WHERE user IS NOT NULL;
        CREATE INDEX event_type_id ON event (type, id);
        CREATE TABLE batch (
            id INTEGER PRIMARY KEY,
            stored_ns INTEGER NOT NULL,     -- the daemon's clock, for all events of the batch
            first_event INTEGER NOT NULL,
            events INTEGER NOT NULL,
            leaves_hash BLOB NOT NULL,
            hash BLOB NOT NULL
        );
        CREATE INDEX batch_first_event ON batch (first_event);
        CREATE TABLE loss (
            id INTEGER PRIMARY KEY,
            batch INTEGER NOT NULL REFERENCES batch (id),
            producer INTEGER NOT NULL REFERENCES producer (id),
            first INTEGER NOT NULL,
            last INTEGER,                   -- NULL: not known
            cause TEXT NOT NULL,
            detected_ns INTEGER NOT NULL
        );
        CREATE INDEX loss_batch ON loss (batch);
        CREATE TABLE quarantine (
            id INTEGER PRIMARY KEY,
            detected_ns INTEGER NOT NULL,
            uid INTEGER NOT NULL,           -- according to the kernel
            pid INTEGER NOT NULL,
            reason TEXT NOT NULL,
            producer INTEGER REFERENCES producer (id),
            sequence INTEGER,               -- of a refused event of a valid producer
            bytes INTEGER NOT NULL,
            excerpt BLOB NOT NULL
        );
        CREATE TABLE rollup_day (
            type INTEGER NOT NULL REFERENCES event_type (id),
            day INTEGER NOT NULL,           -- days since 1970, UTC, by ts_ns
            user TEXT NOT NULL,             -- '' for none
            events INTEGER NOT NULL,
            PRIMARY KEY (type, day, user)
        ) WITHOUT ROWID;
        CREATE TABLE rollup_subject (
            type INTEGER NOT NULL REFERENCES event_type (id),
            subject TEXT NOT NULL,          -- which task, which quiz
            user TEXT NOT NULL,
            events INTEGER NOT NULL,
            first_ts_ns INTEGER NOT NULL,   -- of the first and the last stored event
            last_ts_ns INTEGER NOT NULL,
            last_value REAL,
            best_value REAL,
            PRIMARY KEY (type, subject, user)
        ) WITHOUT ROWID;
        """,
    ),
    (
        "blocks of events",
        """
        CREATE TABLE event_block (          -- 16,384 events each, for queries by time
            block INTEGER PRIMARY KEY,      -- id >> 14
            first_ts_ns INTEGER NOT NULL,   -- the earliest and the latest
            last_ts_ns INTEGER NOT NULL
        );
        WITH RECURSIVE block (block) AS (
            SELECT min(id) >> 14 FROM event
            UNION ALL SELECT block + 1 FROM block WHERE block < (SELECT max(id) >> 14 FROM event)
        )
        INSERT INTO event_block SELECT block,
            (SELECT min(ts_ns) FROM event WHERE id BETWEEN block << 14 AND (block << 14) + 16383),
            (SELECT max(ts_ns) FROM event WHERE id BETWEEN block << 14 AND (block << 14) + 16383)
        FROM block WHERE EXISTS
            (SELECT 1 FROM event WHERE id BETWEEN block << 14 AND (block << 14) + 16383);
        DROP INDEX event_user;
        CREATE INDEX event_user ON event (id >> 14, user, type) WHERE user IS NOT NULL;
        ALTER TABLE event_type ADD COLUMN events INTEGER NOT NULL DEFAULT 0;
        UPDATE event_type SET events =
            (SELECT coalesce(sum(events), 0) FROM rollup_day WHERE type = event_type.id);
        """,
    ),
    (
        "removed events, jobs, forgotten persons",
        """
        CREATE TABLE removal (              -- one for each step of a prune or a forget
            id INTEGER PRIMARY KEY,
            event INTEGER NOT NULL,         -- the internal event with the hash
            kind TEXT NOT NULL,             -- pruned: past retention; erased: of a forgotten person
            events INTEGER NOT NULL,        -- removed, without those only redacted
            hash BLOB NOT NULL              -- over its runs and its redactions
        );
        CREATE TABLE removed (              -- runs of event ids
            first INTEGER PRIMARY KEY,
            last INTEGER NOT NULL,
            removal INTEGER NOT NULL REFERENCES removal (id)
        );
        CREATE TABLE leaf (                 -- of events removed or redacted, as first stored, while
            event INTEGER PRIMARY KEY,      -- another event of their batch is there
            hash BLOB NOT NULL
        );
        CREATE TABLE redacted (             -- the leaf of an event since its redaction
            event INTEGER NOT NULL,
            removal INTEGER NOT NULL REFERENCES removal (id),
            hash BLOB NOT NULL,
            PRIMARY KEY (event, removal)
        ) WITHOUT ROWID;
        CREATE TABLE job (                  -- what the daemon does in steps between its turns
            id INTEGER PRIMARY KEY,
            kind TEXT NOT NULL,
            params BLOB,                    -- a msgpack map; deleted once it is not needed
            asked_ns INTEGER NOT NULL,
            phase TEXT NOT NULL,
            position INTEGER NOT NULL,      -- where in its phase it resumes after a kill
            done INTEGER NOT NULL,          -- of total, for progress display
            total INTEGER NOT NULL,
            outcome BLOB NOT NULL,          -- a msgpack map of counts
            trouble TEXT,                   -- why it waits or has stopped
            finished_ns INTEGER
        );
        CREATE INDEX job_open ON job (id) WHERE finished_ns IS NULL;
        CREATE TABLE secret (
            name TEXT PRIMARY KEY,
            value BLOB NOT NULL
        ) WITHOUT ROWID;
        -- Derived, so that restoring a backup from before this migration gives the same pepper: the
        -- list of forgotten persons still matches.
        INSERT INTO secret SELECT 'pepper', coalesce(
            (SELECT leaves_hash FROM batch WHERE events > 0 ORDER BY id LIMIT 1), randomblob(32));
        CREATE TABLE forgotten (
            token BLOB PRIMARY KEY,         -- of a person: HMAC-SHA256(pepper, user)
            until_ns INTEGER NOT NULL       -- events of an earlier time are erased on arrival
        ) WITHOUT ROWID;
        """,
    ),
    (
        "copies of the trail",
        """
        CREATE TABLE copy (                 -- backups and exports
            id INTEGER PRIMARY KEY,
            kind TEXT NOT NULL,
            made_ns INTEGER NOT NULL,
            expires_ns INTEGER,             -- NULL: not given
            place TEXT NOT NULL
        );
        """,
    ),
    (
        "the clock",
        """
        CREATE TABLE clock (                -- one row: the last trusted reading
            id INTEGER PRIMARY KEY CHECK (id = 1),
            wall_ns INTEGER NOT NULL,
            boot_id TEXT NOT NULL,
            boottime_ns INTEGER NOT NULL,   -- CLOCK_BOOTTIME at that moment
            synchronised INTEGER            -- NULL: not known
        );
        """,
    ),
    (
        "who introduced a type",
        """
        ALTER TABLE event_type ADD COLUMN uid INTEGER;  -- NULL: its events had been removed
        UPDATE event_type SET uid =
            (SELECT p.uid FROM event e JOIN producer p ON p.id = e.producer
             WHERE e.type = event_type.id ORDER BY e.id LIMIT 1);
        """,
    ),
    (
        "what a replaced database had",
        """
        CREATE TABLE replaced (             -- `logd restore`: producers that may have an outbox
            uid INTEGER NOT NULL,
            key TEXT NOT NULL,
            watermark INTEGER NOT NULL,     -- without events that were only claimed
            PRIMARY KEY (uid, key)
        ) WITHOUT ROWID;
        """,
    ),
    (
        "boundaries of forgets",
        """
        CREATE TABLE forget (               -- see logd/storage/boundaries.py
            id INTEGER PRIMARY KEY,         -- their order
            producers INTEGER,              -- known then, up to this id; NULL: not complete yet
            outboxes TEXT NOT NULL,         -- which directory was listed
            surplus TEXT NOT NULL           -- users with more files than were listed, as JSON
        );
        CREATE TABLE forget_boundary (      -- only while it is needed
            uid INTEGER NOT NULL,
            key TEXT NOT NULL,
            forget INTEGER NOT NULL REFERENCES forget (id),
            sequence INTEGER,               -- the highest at the time; NULL: could not be read
            PRIMARY KEY (uid, key, forget)
        ) WITHOUT ROWID;
        -- The forget of that person; 0: from a file, which has only a time.
        ALTER TABLE forgotten ADD COLUMN forget INTEGER NOT NULL DEFAULT 0;
        """,
    ),
    (
        "latest in time",
        """
        ALTER TABLE rollup_subject ADD COLUMN last_attempt INTEGER NOT NULL DEFAULT 0;
        -- What a row holds counts as one event more: nothing of it is lost. Removing events has
        -- recounted the rows, so the events that are there decide.
        INSERT INTO rollup_subject
        SELECT e.type, subject_of(t.name, e.props), e.user, 0, e.ts_ns, e.ts_ns,
            value_of(t.name, e.props), NULL, attempt_of(t.name, e.props)
        FROM event_type t CROSS JOIN event e INDEXED BY event_type_id ON e.type = t.id
        WHERE t.name IN ('task_completed', 'quiz_submitted') AND e.user IS NOT NULL
            AND subject_of(t.name, e.props) IS NOT NULL
        ON CONFLICT DO UPDATE SET first_ts_ns = min(first_ts_ns, excluded.first_ts_ns),
            last_value = iif((excluded.last_ts_ns, excluded.last_attempt)
                >= (last_ts_ns, last_attempt), excluded.last_value, last_value),
            last_attempt = iif((excluded.last_ts_ns, excluded.last_attempt)
                >= (last_ts_ns, last_attempt), excluded.last_attempt, last_attempt),
            last_ts_ns = max(last_ts_ns, excluded.last_ts_ns);
        DROP INDEX event_type_id;           -- in a block by time, for pages in order of time
        CREATE INDEX event_type_id ON event (id >> 14, type, ts_ns);
        """,
    ),
    (
        "the id of the trail",
        """
        CREATE TABLE trail (                -- one row, see logd/storage/trail_id.py
            id INTEGER PRIMARY KEY CHECK (id = 1),
            name TEXT NOT NULL              -- 16 hexadecimal digits, in each anchor
        );
        -- Derived where something is stored, so that a backup from before this migration is of the
        -- same trail when it is restored. The first batch's hash is random: its events are salted.
        INSERT INTO trail SELECT 1, lower(hex(coalesce(
            (SELECT substr(hash, 1, 8) FROM batch ORDER BY id LIMIT 1), randomblob(8))));
        """,
    ),
    (
        "the Merkle tree",
        """
        CREATE TABLE chained (              -- one row: what has the form of a hash chain
            id INTEGER PRIMARY KEY CHECK (id = 1),
            batches INTEGER NOT NULL,       -- up to this batch
            events INTEGER NOT NULL         -- up to this event
        );
        INSERT INTO chained
        SELECT 1, coalesce(max(id), 0), coalesce(max(first_event + events - 1), 0) FROM batch;
        CREATE TABLE node (                 -- see logd/storage/tree.py
            level INTEGER NOT NULL,
            position INTEGER NOT NULL,
            hash BLOB NOT NULL,
            PRIMARY KEY (level, position)
        ) WITHOUT ROWID;
        -- Tile by tile: to group all batches takes memory for each of them. A tile that lacks some
        -- has no hash, and is left to `logd verify`.
        WITH RECURSIVE tile (n) AS
            (SELECT 0 UNION ALL SELECT n + 1 FROM tile WHERE n < (SELECT max(id) >> 8 FROM batch))
        INSERT OR IGNORE INTO node
        SELECT 8, n, (SELECT iif(count(*) = 256, tree_block(id,
            tree_leaf(id, stored_ns, first_event, events, leaves_hash, hash)), NULL)
            FROM batch WHERE id > n << 8 AND id <= (n + 1) << 8)
        FROM tile;
        INSERT INTO node
        SELECT 16, position >> 8, tree_block(position, hash)
        FROM node WHERE level = 8 GROUP BY 2 HAVING count(*) = 256;
        INSERT INTO node
        SELECT 24, position >> 8, tree_block(position, hash)
        FROM node WHERE level = 16 GROUP BY 2 HAVING count(*) = 256;
        CREATE TABLE collapse (             -- one for each step that removed rows of batches
            id INTEGER PRIMARY KEY,
            event INTEGER NOT NULL,         -- the internal event that records it
            first INTEGER NOT NULL,         -- the batches are among these
            last INTEGER NOT NULL,
            batches INTEGER NOT NULL,
            events INTEGER NOT NULL         -- of those batches; all had been removed before
        );
        -- What of a removal is known by numbers only, since its batches' rows are gone.
        ALTER TABLE removal ADD COLUMN collapsed_events INTEGER NOT NULL DEFAULT 0;
        -- A leaf of a level above 0 is a block of removed events, from that event on.
        ALTER TABLE leaf ADD COLUMN level INTEGER NOT NULL DEFAULT 0;
        """,
    ),
    (
        "removals are collapsed whole",
        """
        -- Of the batches that are collapsed, while other batches of the removal are not: its runs
        -- stay until then. Schema 11 deleted them at once; such a removal has collapsed_events
        -- above 0 and below events.
        ALTER TABLE removal ADD COLUMN waiting_events INTEGER NOT NULL DEFAULT 0;
        CREATE INDEX removal_waiting ON removal (id) WHERE waiting_events > 0;
        """,
    ),
    (
        "roll-ups by user",
        """
        -- All of one person, and all spellings of an id, without reading everyone's roll-ups.
        CREATE INDEX rollup_day_user ON rollup_day (user);
        CREATE INDEX rollup_subject_user ON rollup_subject (user);
        """,
    ),
    (
        "values by block",
        """
        -- See logd/storage/block_values.py: the daemon fills both, a block after the other.
        CREATE TABLE block_search (
            block INTEGER PRIMARY KEY,
            last INTEGER NOT NULL,          -- the event up to which its values are known
            keys TEXT NOT NULL,             -- the person keys by which its persons were found
            more INTEGER NOT NULL           -- whether it has paths without a row
        );
        CREATE TABLE block_value (
            path TEXT NOT NULL,
            block INTEGER NOT NULL,
            open INTEGER NOT NULL,          -- whether the values are not listed
            chars TEXT NOT NULL,
            entries BLOB NOT NULL,
            masks BLOB NOT NULL,
            PRIMARY KEY (path, block)
        ) WITHOUT ROWID;
        CREATE INDEX block_value_block ON block_value (block);
        """,
    ),
]
