-- Child runs, workflows, schedules, webhooks, signals, a session's inbox, votes on approvals, budgets by period, leases of nodes.
ALTER TABLE sessions ADD COLUMN double_text TEXT;
ALTER TABLE sessions ADD COLUMN parent_run_id TEXT;
ALTER TABLE sessions ADD COLUMN root_session_id TEXT;
ALTER TABLE sessions ADD COLUMN inbox_count INTEGER;
ALTER TABLE sessions ADD COLUMN summary_id TEXT;
CREATE INDEX sessions_expires_at ON sessions (tenant_id, expires_at, id) WHERE expires_at IS NOT NULL;
ALTER TABLE sessions ADD COLUMN forked_from TEXT;
ALTER TABLE sessions ADD COLUMN forked_at TEXT;
ALTER TABLE agent_runs ADD COLUMN wakes_at INTEGER;
ALTER TABLE agent_runs ADD COLUMN parent_run_id TEXT;
ALTER TABLE agent_runs ADD COLUMN depth INTEGER;
ALTER TABLE agent_runs ADD COLUMN workflow TEXT;
ALTER TABLE agent_runs ADD COLUMN budget TEXT;
ALTER TABLE agent_runs ADD COLUMN forked_from TEXT;
ALTER TABLE agent_runs ADD COLUMN forked_at INTEGER;
ALTER TABLE agent_runs ADD COLUMN degraded TEXT;
CREATE INDEX agent_runs_wakes_at ON agent_runs (tenant_id, wakes_at, id) WHERE wakes_at IS NOT NULL;
CREATE INDEX agent_runs_parent_run_id ON agent_runs (tenant_id, parent_run_id, id) WHERE parent_run_id IS NOT NULL;
ALTER TABLE approvals ADD COLUMN quorum INTEGER;
ALTER TABLE approvals ADD COLUMN approvers TEXT;
ALTER TABLE approvals ADD COLUMN votes INTEGER;
ALTER TABLE approvals ADD COLUMN remind_at INTEGER;
ALTER TABLE approvals ADD COLUMN remind_ms INTEGER;
ALTER TABLE approvals ADD COLUMN reminders INTEGER;
CREATE INDEX approvals_remind_at ON approvals (tenant_id, remind_at, id) WHERE remind_at IS NOT NULL;
ALTER TABLE api_keys ADD COLUMN minters TEXT;
ALTER TABLE budgets ADD COLUMN period TEXT;
ALTER TABLE budgets ADD COLUMN period_start INTEGER;
ALTER TABLE budgets ADD COLUMN alerts TEXT;
ALTER TABLE budgets ADD COLUMN alerted INTEGER;
ALTER TABLE budgets ADD COLUMN revision INTEGER;
ALTER TABLE ledger ADD COLUMN run_path TEXT;

CREATE TABLE approval_votes (
    tenant_id TEXT NOT NULL,
    approval_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    approver TEXT NOT NULL,
    decision TEXT NOT NULL,
    digest TEXT NOT NULL,
    reason TEXT,
    delegated_by TEXT,
    persons TEXT NOT NULL,
    key_id TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, approval_id, number)
) WITHOUT ROWID;

CREATE TABLE approval_delegations (
    tenant_id TEXT NOT NULL,
    from_user TEXT NOT NULL,
    to_user TEXT NOT NULL,
    reason TEXT,
    persons TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, from_user, to_user)
) WITHOUT ROWID;
CREATE INDEX approval_delegations_to_user ON approval_delegations (tenant_id, to_user, from_user);

CREATE TABLE session_inbox (
    tenant_id TEXT NOT NULL,
    session_id TEXT NOT NULL,
    id TEXT NOT NULL,
    mode TEXT NOT NULL,
    content TEXT NOT NULL,
    parts TEXT,
    model TEXT,
    principal TEXT NOT NULL,
    run_id TEXT,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, session_id, id)
) WITHOUT ROWID;

CREATE TABLE workflows (
    tenant_id TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    definition TEXT NOT NULL,
    source TEXT,
    deprecated TEXT,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name, version)
) WITHOUT ROWID;

CREATE TABLE run_signals (
    tenant_id TEXT NOT NULL,
    run_id TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    data TEXT NOT NULL,
    sent_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, run_id, id)
) WITHOUT ROWID;

CREATE TABLE schedules (
    tenant_id TEXT NOT NULL,
    name TEXT NOT NULL,
    workflow TEXT NOT NULL,
    cron TEXT NOT NULL,
    time_zone TEXT NOT NULL,
    input TEXT NOT NULL,
    missed TEXT NOT NULL,
    overlap TEXT NOT NULL,
    is_paused INTEGER NOT NULL,
    next_at INTEGER,
    last_at INTEGER,
    last_run_id TEXT,
    last_error TEXT,
    user_id TEXT NOT NULL,
    role TEXT NOT NULL,
    revision INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name)
);
CREATE INDEX schedules_next_at ON schedules (tenant_id, next_at, name) WHERE next_at IS NOT NULL;

CREATE TABLE webhooks (
    tenant_id TEXT NOT NULL,
    name TEXT NOT NULL,
    workflow TEXT,
    signal_name TEXT,
    scheme TEXT NOT NULL,
    secret TEXT NOT NULL,
    user_id TEXT NOT NULL,
    role TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name)
);

CREATE TABLE webhook_endpoints (
    tenant_id TEXT NOT NULL,
    name TEXT NOT NULL,
    url TEXT NOT NULL,
    events TEXT NOT NULL,
    secret TEXT NOT NULL,
    is_paused INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name)
);

CREATE TABLE webhook_deliveries (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    event TEXT NOT NULL,
    body TEXT NOT NULL,
    status TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    next_at INTEGER,
    last_error TEXT,
    created_at INTEGER NOT NULL,
    done_at INTEGER,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX webhook_deliveries_endpoint ON webhook_deliveries (tenant_id, endpoint, id);
CREATE INDEX webhook_deliveries_next_at ON webhook_deliveries (tenant_id, next_at, id) WHERE next_at IS NOT NULL;

CREATE TABLE budget_leases (
    tenant_id TEXT NOT NULL,
    node TEXT NOT NULL,
    level TEXT NOT NULL,
    subject TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    cost_nanousd INTEGER NOT NULL,
    tool_calls INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, node, level, subject)
) WITHOUT ROWID;

CREATE TABLE nodes (
    tenant_id TEXT NOT NULL,
    node TEXT NOT NULL,
    beat INTEGER NOT NULL,
    started_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, node)
);

CREATE TABLE budget_periods (
    tenant_id TEXT NOT NULL,
    level TEXT NOT NULL,
    subject TEXT NOT NULL,
    period TEXT NOT NULL,
    started_at INTEGER NOT NULL,
    spent_tokens INTEGER NOT NULL,
    spent_time_ms INTEGER NOT NULL,
    spent_cost_nanousd INTEGER NOT NULL,
    spent_tool_calls INTEGER NOT NULL,
    alerted INTEGER,
    PRIMARY KEY (tenant_id, level, subject, period)
) WITHOUT ROWID;

CREATE TABLE run_environments (
    tenant_id TEXT NOT NULL,
    digest TEXT NOT NULL,
    content TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, digest)
);
