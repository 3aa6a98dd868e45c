-- The first schema: tables.def as SQL.  Never changed once released: a later migration changes the tables.
CREATE TABLE tenants (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + CAST(substr(strftime('%f', 'now'), 4) AS INTEGER) * 1000),
    metadata TEXT,
    PRIMARY KEY (tenant_id, id)
);
CREATE TABLE sessions (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    created_at INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + CAST(substr(strftime('%f', 'now'), 4) AS INTEGER) * 1000),
    updated_at INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + CAST(substr(strftime('%f', 'now'), 4) AS INTEGER) * 1000),
    status TEXT NOT NULL DEFAULT 'active',
    budget TEXT NOT NULL DEFAULT '{"tokens":10000,"time_seconds":3600}',
    policy_context TEXT,
    metadata TEXT,
    agent TEXT,
    requested_by TEXT NOT NULL,
    role TEXT NOT NULL,
    expires_at INTEGER,
    owner_node TEXT,
    owner_epoch INTEGER,
    live_run_id TEXT,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX sessions_user_id ON sessions (tenant_id, user_id, id);
CREATE TABLE messages (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    role TEXT NOT NULL,
    content TEXT NOT NULL,
    tokens INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + CAST(substr(strftime('%f', 'now'), 4) AS INTEGER) * 1000),
    metadata TEXT,
    run_id TEXT,
    parts TEXT,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id)
);
CREATE INDEX messages_session_id ON messages (tenant_id, session_id, id);
CREATE INDEX messages_run_id ON messages (tenant_id, run_id, id);
CREATE TABLE agent_runs (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    status TEXT NOT NULL,
    started_at INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + CAST(substr(strftime('%f', 'now'), 4) AS INTEGER) * 1000),
    completed_at INTEGER,
    cost TEXT NOT NULL,
    trace_id TEXT,
    error_message TEXT,
    metadata TEXT,
    agent TEXT NOT NULL,
    model TEXT,
    user_id TEXT NOT NULL,
    error TEXT,
    last_seq INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions (tenant_id, id)
);
CREATE INDEX agent_runs_session_id ON agent_runs (tenant_id, session_id, id);
CREATE INDEX agent_runs_status ON agent_runs (tenant_id, status, id);
CREATE TABLE run_events (
    tenant_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    type TEXT NOT NULL,
    v INTEGER NOT NULL,
    at INTEGER NOT NULL,
    data TEXT NOT NULL,
    PRIMARY KEY (tenant_id, run_id, seq)
) WITHOUT ROWID;
CREATE TABLE tool_calls (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    tool_name TEXT NOT NULL,
    tool_version TEXT NOT NULL,
    input TEXT NOT NULL,
    output TEXT,
    latency_ms INTEGER,
    status TEXT NOT NULL,
    error_message TEXT,
    created_at INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + CAST(substr(strftime('%f', 'now'), 4) AS INTEGER) * 1000),
    call_id TEXT,
    effect_key TEXT,
    fuel INTEGER,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, run_id) REFERENCES agent_runs (tenant_id, id)
);
CREATE INDEX tool_calls_run_id ON tool_calls (tenant_id, run_id, id);
CREATE TABLE audit_logs (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    action TEXT NOT NULL,
    resource_type TEXT NOT NULL,
    resource_id TEXT,
    details TEXT,
    ip_address TEXT,
    user_agent TEXT,
    created_at INTEGER NOT NULL DEFAULT (CAST(strftime('%s', 'now') AS INTEGER) * 1000000 + CAST(substr(strftime('%f', 'now'), 4) AS INTEGER) * 1000),
    writer TEXT NOT NULL,
    seq INTEGER NOT NULL,
    prev_hash TEXT NOT NULL,
    hash TEXT NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE TABLE audit_checkpoints (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    writer TEXT NOT NULL,
    seq INTEGER NOT NULL,
    hash TEXT NOT NULL,
    signature TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE TABLE approvals (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    tool_call_id TEXT,
    action TEXT NOT NULL,
    digest TEXT NOT NULL,
    subject TEXT NOT NULL,
    requested_by TEXT NOT NULL,
    user_id TEXT NOT NULL,
    status TEXT NOT NULL,
    approver TEXT,
    reason TEXT,
    created_at INTEGER NOT NULL,
    decided_at INTEGER,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX approvals_run_id ON approvals (tenant_id, run_id, id);
CREATE INDEX approvals_status ON approvals (tenant_id, status, id);
CREATE TABLE api_keys (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    prefix TEXT NOT NULL,
    hash TEXT NOT NULL,
    user_id TEXT NOT NULL,
    created_by TEXT NOT NULL,
    role TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    revoked_at INTEGER,
    PRIMARY KEY (tenant_id, id)
);
CREATE UNIQUE INDEX api_keys_hash ON api_keys (hash);
CREATE TABLE budgets (
    tenant_id TEXT NOT NULL,
    level TEXT NOT NULL,
    subject TEXT NOT NULL,
    limit_tokens INTEGER,
    limit_time_ms INTEGER,
    limit_cost_nanousd INTEGER,
    limit_tool_calls INTEGER,
    spent_tokens INTEGER NOT NULL,
    spent_time_ms INTEGER NOT NULL,
    spent_cost_nanousd INTEGER NOT NULL,
    spent_tool_calls INTEGER NOT NULL,
    leased_tokens INTEGER NOT NULL,
    leased_time_ms INTEGER NOT NULL,
    leased_cost_nanousd INTEGER NOT NULL,
    leased_tool_calls INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, level, subject)
) WITHOUT ROWID;
CREATE TABLE ledger (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    at INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    session_id TEXT,
    run_id TEXT,
    kind TEXT NOT NULL,
    basis TEXT NOT NULL,
    model TEXT,
    tokens INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    cost_nanousd INTEGER NOT NULL,
    tool_calls INTEGER NOT NULL,
    details TEXT,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX ledger_at ON ledger (tenant_id, at, id);
CREATE INDEX ledger_session_id ON ledger (tenant_id, session_id, id);
CREATE INDEX ledger_run_id ON ledger (tenant_id, run_id, id);
CREATE TABLE session_files (
    tenant_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    name TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    digest TEXT NOT NULL,
    content_type TEXT,
    path TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, session_id, name)
) WITHOUT ROWID;
CREATE TABLE idempotency (
    tenant_id TEXT NOT NULL,
    principal TEXT NOT NULL,
    idempotency_key TEXT NOT NULL,
    request_digest TEXT NOT NULL,
    status INTEGER NOT NULL,
    body TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, principal, idempotency_key)
) WITHOUT ROWID;
CREATE INDEX idempotency_created_at ON idempotency (tenant_id, created_at, principal, idempotency_key);
CREATE UNIQUE INDEX audit_logs_chain ON audit_logs (tenant_id, writer, seq);
CREATE UNIQUE INDEX audit_checkpoints_chain ON audit_checkpoints (tenant_id, writer, seq);
CREATE TABLE kv (
    tenant_id TEXT NOT NULL,
    key TEXT NOT NULL,
    value BLOB NOT NULL,
    expires_at INTEGER,
    PRIMARY KEY (tenant_id, key)
) WITHOUT ROWID;
CREATE INDEX kv_expires_at ON kv (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE session_memory (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    timestamp INTEGER NOT NULL,
    content_type TEXT NOT NULL,
    metadata TEXT NOT NULL,
    vector BLOB NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX session_memory_session_id ON session_memory (tenant_id, session_id, id);
CREATE INDEX session_memory_user_id ON session_memory (tenant_id, user_id, id);
