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
