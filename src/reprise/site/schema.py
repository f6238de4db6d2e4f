"""The tables of the page's database, as steps: a database of any earlier version is brought up to the last one.

A step that was released is never changed; what is new goes into a step of its own at the end of ``STEPS``.
Instants are seconds since 1970 in UTC, days are "2026-11-24", lists are JSON.
"""

from __future__ import annotations

__all__ = ["STEPS"]

FEED = (
    "CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID",
    "INSERT INTO facts VALUES ('changes', 0)",
    # one row per arXiv id; what can be searched of it is in texts
    """CREATE TABLE entries (
        number INTEGER PRIMARY KEY AUTOINCREMENT,  -- in the order of arrival: what mail has been sent up to
        id TEXT NOT NULL UNIQUE,                   -- without its version
        title TEXT NOT NULL,
        authors TEXT NOT NULL,
        day TEXT NOT NULL,                         -- the first day it was announced on, by any source
        published TEXT,                            -- first version, ISO instant or date
        updated TEXT,
        version INTEGER NOT NULL DEFAULT 1,
        categories TEXT NOT NULL DEFAULT '[]',
        comment TEXT, journal TEXT, doi TEXT, code TEXT, project TEXT,
        source TEXT NOT NULL,                      -- that brought it first
        added REAL NOT NULL)""",
    "CREATE INDEX entries_by_day ON entries (day, number)",
    """CREATE TABLE versions (
        entry INTEGER NOT NULL REFERENCES entries ON DELETE CASCADE,
        version INTEGER NOT NULL, date TEXT, title TEXT NOT NULL,
        PRIMARY KEY (entry, version)) WITHOUT ROWID""",
    """CREATE TABLE sightings (
        entry INTEGER NOT NULL REFERENCES entries ON DELETE CASCADE,
        source TEXT NOT NULL, day TEXT NOT NULL,
        PRIMARY KEY (entry, source)) WITHOUT ROWID""",
    "CREATE TABLE aliases (alias TEXT PRIMARY KEY, entry INTEGER NOT NULL REFERENCES entries ON DELETE CASCADE)"
    " WITHOUT ROWID",
    """CREATE TABLE snapshots (
        entry INTEGER NOT NULL REFERENCES entries ON DELETE CASCADE,
        at REAL NOT NULL, upvotes INTEGER, stars INTEGER,
        PRIMARY KEY (entry, at)) WITHOUT ROWID""",
    "CREATE INDEX snapshots_by_time ON snapshots (at)",
    """CREATE TABLE sources (
        name TEXT PRIMARY KEY, address TEXT NOT NULL,
        etag TEXT, modified TEXT,                  -- for conditional requests
        asked REAL, succeeded REAL, highest TEXT,  -- last request, last good answer, highest id in it
        failures INTEGER NOT NULL DEFAULT 0, wait_until REAL, error TEXT,
        holder TEXT, held_until REAL) WITHOUT ROWID""",
    "CREATE TABLE paces (host TEXT PRIMARY KEY, next REAL NOT NULL) WITHOUT ROWID",
    # what each question to a source gave: 'new', 'empty', 'unchanged' or 'failed'
    """CREATE TABLE checks (
        source TEXT NOT NULL, at REAL NOT NULL, day TEXT NOT NULL, outcome TEXT NOT NULL,
        new INTEGER NOT NULL DEFAULT 0, left_out INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (source, at)) WITHOUT ROWID""",
)

SEARCH = (
    """CREATE TABLE texts (
        number INTEGER PRIMARY KEY,                -- those of the library begin at 10**12: never among the oldest
        kind TEXT NOT NULL,                        -- paper, part, claim, entry
        key TEXT NOT NULL,                         -- slug, dotted name, slug#2, arXiv id
        title TEXT NOT NULL,
        names TEXT NOT NULL,                       -- joined and split spellings, never shown
        body TEXT NOT NULL,
        UNIQUE (kind, key))""",
    """CREATE VIRTUAL TABLE words USING fts5 (
        title, names, body, content = 'texts', content_rowid = 'number',
        tokenize = "porter unicode61 remove_diacritics 2 tokenchars '+#'")""",
    """CREATE TRIGGER texts_added AFTER INSERT ON texts BEGIN
        INSERT INTO words (rowid, title, names, body) VALUES (new.number, new.title, new.names, new.body);
    END""",
    """CREATE TRIGGER texts_gone AFTER DELETE ON texts BEGIN
        INSERT INTO words (words, rowid, title, names, body)
            VALUES ('delete', old.number, old.title, old.names, old.body);
        DELETE FROM names WHERE text = old.number;
    END""",
    """CREATE TRIGGER texts_changed AFTER UPDATE ON texts BEGIN
        INSERT INTO words (words, rowid, title, names, body)
            VALUES ('delete', old.number, old.title, old.names, old.body);
        INSERT INTO words (rowid, title, names, body) VALUES (new.number, new.title, new.names, new.body);
    END""",
    # whole names in letters and digits only: "gradcam", "c++", "2506.15799"
    "CREATE TABLE names (name TEXT NOT NULL, text INTEGER NOT NULL, PRIMARY KEY (name, text)) WITHOUT ROWID",
    "CREATE INDEX names_by_text ON names (text)",
    # what vectors are made with, and the vector of each text; a text that changes loses its own until the next round
    "CREATE TABLE models (name TEXT PRIMARY KEY, made REAL NOT NULL, texts INTEGER NOT NULL, data BLOB NOT NULL)",
    """CREATE TABLE vectors (
        place INTEGER PRIMARY KEY AUTOINCREMENT,   -- grows, so that readers see what is new
        text INTEGER NOT NULL UNIQUE, model TEXT NOT NULL, vector BLOB NOT NULL)""",
    "CREATE INDEX vectors_by_model ON vectors (model, place)",
    "CREATE TRIGGER vectors_gone AFTER DELETE ON texts BEGIN DELETE FROM vectors WHERE text = old.number; END",
    """CREATE TRIGGER vectors_changed AFTER UPDATE ON texts BEGIN
        DELETE FROM vectors WHERE text = old.number;
    END""",
    # the implemented papers as they were seen last, so that filters and verdict mail need no files
    """CREATE TABLE library (
        slug TEXT PRIMARY KEY, arxiv TEXT NOT NULL, title TEXT NOT NULL, room TEXT NOT NULL,
        verdict TEXT NOT NULL, mark TEXT NOT NULL, scale TEXT NOT NULL) WITHOUT ROWID""",
    "CREATE INDEX library_by_arxiv ON library (arxiv)",
    # every change of a verdict or mark that was seen: only ever added to
    """CREATE TABLE changes (
        number INTEGER PRIMARY KEY AUTOINCREMENT, slug TEXT NOT NULL, at REAL NOT NULL,
        before TEXT NOT NULL, now TEXT NOT NULL)""",
    """CREATE TABLE nearest (
        entry INTEGER NOT NULL REFERENCES entries ON DELETE CASCADE,
        place INTEGER NOT NULL, slug TEXT NOT NULL, score REAL NOT NULL, shared TEXT NOT NULL,
        PRIMARY KEY (entry, place)) WITHOUT ROWID""",
    "CREATE INDEX nearest_by_slug ON nearest (slug, entry)",
)

MAIL = (
    """CREATE TABLE subscriptions (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        address TEXT NOT NULL,                     -- after leaving: a keyed hash
        state TEXT NOT NULL,                       -- pending, active, suspended, left
        every TEXT NOT NULL,                       -- day or week
        topic TEXT NOT NULL, value TEXT NOT NULL,  -- room, search or paper, and which
        nonce TEXT NOT NULL UNIQUE,                -- what leaving links carry
        consent TEXT NOT NULL,                     -- the words that were agreed to
        created REAL NOT NULL, confirmed REAL, left_at REAL,
        refusals INTEGER NOT NULL DEFAULT 0,
        entries_seen INTEGER NOT NULL, changes_seen INTEGER NOT NULL)""",
    "CREATE INDEX subscriptions_by_address ON subscriptions (address)",
    # a frozen message for one subscription: at most one per period
    """CREATE TABLE deliveries (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        subscription INTEGER NOT NULL REFERENCES subscriptions ON DELETE CASCADE,
        period TEXT NOT NULL,                      -- 2026-11-24, 2026-W48 or confirm-1
        content TEXT NOT NULL, entries_seen INTEGER, changes_seen INTEGER,
        state TEXT NOT NULL,                       -- queued, sending, sent, unknown, failed
        tries INTEGER NOT NULL DEFAULT 0, next_try REAL NOT NULL, created REAL NOT NULL, finished REAL, reply TEXT,
        UNIQUE (subscription, period))""",
    "CREATE INDEX deliveries_waiting ON deliveries (state, next_try)",
    "CREATE TABLE leases (name TEXT PRIMARY KEY, holder TEXT NOT NULL, until REAL NOT NULL) WITHOUT ROWID",
    "CREATE TABLE attempts (who TEXT NOT NULL, at REAL NOT NULL)",  # sign-ups, by keyed hash
    "CREATE INDEX attempts_by_who ON attempts (who, at)",
)

STEPS: tuple[tuple[str, ...], ...] = (FEED + SEARCH + MAIL,)
