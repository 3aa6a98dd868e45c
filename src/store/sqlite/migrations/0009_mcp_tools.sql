-- Definitions of other servers' tools: which one was approved.
CREATE TABLE mcp_tools (
    tenant_id TEXT NOT NULL,
    server TEXT NOT NULL,
    tool TEXT NOT NULL,
    nexus_name TEXT NOT NULL,
    digest TEXT,
    definition TEXT,
    approved_by TEXT,
    approved_at INTEGER,
    first_seen_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, server, tool)
) WITHOUT ROWID;
