"""The schema of the site's own database, as an ordered list of migrations.

Append only: a released migration is never edited, because existing databases have applied it. Each
is applied in one transaction together with its record (see db.py).
"""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, str], ...] = (
    (
        "accounts",
        """
        CREATE TABLE users (
            id INTEGER PRIMARY KEY,
            login TEXT NOT NULL UNIQUE COLLATE NOCASE,
            name TEXT NOT NULL,
            role TEXT NOT NULL CHECK (role IN ('student', 'teacher', 'auditor')),
            password_hash TEXT NOT NULL,
            created_ns INTEGER NOT NULL
        ) STRICT;
        """,
    ),
    (
        "courses",
        """
        CREATE TABLE courses (
            slug TEXT PRIMARY KEY,
            title TEXT NOT NULL,
            summary TEXT NOT NULL,
            position INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE lessons (
            course TEXT NOT NULL REFERENCES courses (slug),
            slug TEXT NOT NULL,
            title TEXT NOT NULL,
            body TEXT NOT NULL,
            position INTEGER NOT NULL,
            PRIMARY KEY (course, slug)
        ) STRICT;
        CREATE TABLE tasks (
            id TEXT PRIMARY KEY,
            course TEXT NOT NULL REFERENCES courses (slug),
            title TEXT NOT NULL,
            body TEXT NOT NULL,
            position INTEGER NOT NULL
        ) STRICT;
        CREATE TABLE quizzes (
            id TEXT PRIMARY KEY,
            course TEXT NOT NULL REFERENCES courses (slug),
            title TEXT NOT NULL,
            intro TEXT NOT NULL,
            questions TEXT NOT NULL,  -- JSON, read by scoring.py
            position INTEGER NOT NULL
        ) STRICT;
        """,
    ),
    (
        "work of students",
        """
        CREATE TABLE completions (
            user_id INTEGER NOT NULL REFERENCES users (id),
            task TEXT NOT NULL REFERENCES tasks (id),
            completed_ns INTEGER NOT NULL,
            PRIMARY KEY (user_id, task)
        ) STRICT;
        CREATE TABLE attempts (
            id INTEGER PRIMARY KEY,
            user_id INTEGER NOT NULL REFERENCES users (id),
            quiz TEXT NOT NULL REFERENCES quizzes (id),
            number INTEGER NOT NULL,
            -- The questions as they were asked: a quiz edited later must not change old feedback.
            questions TEXT NOT NULL,
            answers TEXT NOT NULL,
            score REAL NOT NULL,
            submitted_ns INTEGER NOT NULL,
            UNIQUE (user_id, quiz, number)
        ) STRICT;
        """,
    ),
    (
        "login throttle",
        """
        CREATE TABLE login_hits (
            key TEXT NOT NULL,
            at_s REAL NOT NULL,
            expires_s REAL NOT NULL
        ) STRICT;
        CREATE INDEX login_hits_key ON login_hits (key, at_s);
        CREATE INDEX login_hits_expiry ON login_hits (expires_s);
        """,
    ),
    (
        "requests about one's data",
        """
        CREATE TABLE data_requests (
            id INTEGER PRIMARY KEY,
            user_id INTEGER NOT NULL REFERENCES users (id),
            kind TEXT NOT NULL CHECK (kind IN ('correction', 'erasure')),
            text TEXT NOT NULL,
            made_ns INTEGER NOT NULL,
            outcome TEXT CHECK (outcome IN ('done', 'refused')),
            answer TEXT,
            answered_by INTEGER REFERENCES users (id),
            answered_ns INTEGER
        ) STRICT;
        -- One open request of a kind for each account.
        CREATE UNIQUE INDEX data_requests_open ON data_requests (user_id, kind)
            WHERE answered_ns IS NULL;
        -- Numbers of accounts that are gone, which no other account may get.
        CREATE TABLE erased_accounts (
            id INTEGER PRIMARY KEY,
            erased_ns INTEGER NOT NULL
        ) STRICT;
        """,
    ),
    (
        "drafts of quizzes",
        """
        CREATE TABLE quiz_drafts (
            user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
            quiz TEXT NOT NULL REFERENCES quizzes (id) ON DELETE CASCADE,
            number INTEGER NOT NULL,  -- of the attempt that the draft is for
            answers TEXT NOT NULL CHECK (length(answers) <= 262144),  -- JSON, read by drafts.py
            saved_ns INTEGER NOT NULL,
            -- Another one at each change, so that a page knows whether it shows the latest.
            revision TEXT NOT NULL,
            page TEXT NOT NULL,  -- the page that saved it
            PRIMARY KEY (user_id, quiz)
        ) STRICT;
        """,
    ),
    (
        "work compared with the trail",
        """
        -- Work that needs no further comparison; other work has no row.
        CREATE TABLE trail_entries (
            user_id INTEGER NOT NULL REFERENCES users (id) ON DELETE CASCADE,
            type TEXT NOT NULL,
            subject TEXT NOT NULL,
            number INTEGER NOT NULL,  -- of a quiz's attempt; 0 for a task
            state TEXT NOT NULL CHECK (state IN ('stored', 'sent', 'withheld')),
            at_ns INTEGER NOT NULL,
            PRIMARY KEY (user_id, type, subject, number)
        ) STRICT;
        CREATE TABLE trail_erasures (
            one INTEGER PRIMARY KEY CHECK (one = 1),
            events INTEGER NOT NULL  -- of erasures that the trail had at the last comparison
        ) STRICT;
        """,
    ),
    (
        "saved searches",
        """
        CREATE TABLE saved_searches (
            id INTEGER PRIMARY KEY,
            user_id INTEGER NOT NULL REFERENCES users (id),
            name TEXT NOT NULL,
            query TEXT NOT NULL,  -- the address after its question mark
            saved_ns INTEGER NOT NULL,
            UNIQUE (user_id, name)
        ) STRICT;
        """,
    ),
)
