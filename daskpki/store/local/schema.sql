-- The tables of a local store, format 1 (daskpki.store.local.database).

CREATE TABLE meta (
    store_id TEXT NOT NULL,
    created INTEGER NOT NULL
) STRICT;

-- Each slot seals the same master key by other means.
CREATE TABLE key_slot (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    created INTEGER NOT NULL,
    box BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE secret (
    id TEXT PRIMARY KEY,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    etag TEXT NOT NULL,
    created INTEGER NOT NULL,
    data_key BLOB NOT NULL,
    mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX secret_by_part ON secret (substr(id, -2));

CREATE TABLE version (
    secret TEXT NOT NULL REFERENCES secret (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    state TEXT NOT NULL,
    created INTEGER NOT NULL,
    sealed BLOB,
    PRIMARY KEY (secret, number)
) STRICT;

CREATE TRIGGER version_is_immutable BEFORE UPDATE OF secret, number, created, sealed ON version
WHEN NEW.sealed IS NOT NULL OR NEW.secret IS NOT OLD.secret OR NEW.number IS NOT OLD.number
BEGIN SELECT RAISE(ABORT, 'a payload never changes'); END;

CREATE TABLE record (
    cluster TEXT NOT NULL,
    seq INTEGER NOT NULL,
    time INTEGER NOT NULL,
    operation TEXT NOT NULL,
    who TEXT NOT NULL,
    command TEXT NOT NULL,
    kind TEXT NOT NULL,
    body TEXT NOT NULL,
    hash TEXT NOT NULL,
    signatures TEXT,
    PRIMARY KEY (cluster, seq)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER record_is_never_changed BEFORE UPDATE ON record
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;

CREATE TRIGGER record_is_never_deleted BEFORE DELETE ON record
BEGIN SELECT RAISE(ABORT, 'the log is append-only'); END;

-- The newest record of each log; `mac` is under a key that is derived from the master key. `base` is always NULL: it is
-- kept for a log that begins later than at its first record, and refused when it is set.
CREATE TABLE log_head (
    cluster TEXT PRIMARY KEY,
    seq INTEGER NOT NULL,
    hash TEXT NOT NULL,
    base TEXT,
    mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;

-- What follows from the records: changed in their transaction.
CREATE TABLE certificate (
    position INTEGER PRIMARY KEY,
    cluster TEXT NOT NULL,
    serial TEXT NOT NULL,
    role TEXT NOT NULL,
    name TEXT NOT NULL,
    issuer INTEGER NOT NULL,
    not_before INTEGER NOT NULL,
    not_after INTEGER NOT NULL,
    reserved_at INTEGER NOT NULL,
    operation TEXT NOT NULL,
    status TEXT NOT NULL,
    key_type TEXT NOT NULL,
    sans TEXT NOT NULL,
    fingerprint TEXT,
    version INTEGER,
    superseded INTEGER NOT NULL,
    revoked_at INTEGER,
    reason TEXT,
    issued_seq INTEGER,
    UNIQUE (cluster, serial)
) STRICT;

CREATE INDEX certificate_by_fingerprint ON certificate (cluster, fingerprint);
CREATE INDEX certificate_by_name ON certificate (cluster, role, name, issued_seq);
CREATE INDEX certificate_by_status ON certificate (cluster, status);
CREATE INDEX certificate_by_end ON certificate (cluster, not_after);

CREATE TABLE authority (
    cluster TEXT NOT NULL,
    generation INTEGER NOT NULL,
    entry TEXT NOT NULL,
    PRIMARY KEY (cluster, generation)
) STRICT, WITHOUT ROWID;

CREATE TABLE published (
    cluster TEXT PRIMARY KEY,
    epoch INTEGER NOT NULL,
    body TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What authenticates the tables (daskpki.store.local.table_seal).
CREATE TABLE table_digest (
    part TEXT PRIMARY KEY,
    digest BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE table_seal (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    mac BLOB NOT NULL
) STRICT;
