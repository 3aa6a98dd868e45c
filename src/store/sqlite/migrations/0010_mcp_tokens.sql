-- Users' logins at other servers; the tokens are sealed.
CREATE TABLE mcp_tokens (
    tenant_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    server TEXT NOT NULL,
    sealed TEXT NOT NULL,
    issuer TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, user_id, server)
) WITHOUT ROWID;
