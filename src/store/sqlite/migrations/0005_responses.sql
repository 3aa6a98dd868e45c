CREATE TABLE responses (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    previous_id TEXT,
    model TEXT NOT NULL,
    provider TEXT,
    session_id TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    input TEXT NOT NULL,
    response TEXT NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX responses_expires_at ON responses (tenant_id, expires_at, id);
