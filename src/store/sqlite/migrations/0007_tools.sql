-- Installed tools and what people decided about tools.  The platform's rows are those of the tenant 00000000-0000-0000-0000-000000000000.
CREATE TABLE tool_packages (
    tenant_id TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    seal TEXT NOT NULL,
    folder TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    installed_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name, version)
) WITHOUT ROWID;
CREATE TABLE tool_states (
    tenant_id TEXT NOT NULL,
    name TEXT NOT NULL,
    revision INTEGER NOT NULL,
    pinned_version TEXT,
    canary_version TEXT,
    canary_percent INTEGER,
    is_hidden INTEGER,
    visible_to TEXT,
    deprecated TEXT,
    permissions TEXT,
    updated_by TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, name)
);
