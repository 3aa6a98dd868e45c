-- Usage of plain calls: records in chunks, daily sums, latencies, feedback; the key in the ledger.
ALTER TABLE ledger ADD COLUMN key_id TEXT;
CREATE TABLE usage_chunks (
    tenant_id TEXT NOT NULL,
    id TEXT NOT NULL,
    first_at INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    calls INTEGER NOT NULL,
    digest TEXT NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX usage_chunks_last_at ON usage_chunks (tenant_id, last_at, id);
CREATE TABLE usage_daily (
    tenant_id TEXT NOT NULL,
    day TEXT NOT NULL,
    user_id TEXT NOT NULL,
    key_id TEXT NOT NULL,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    variant TEXT NOT NULL,
    kind TEXT NOT NULL,
    requests INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    cache_hits INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    reasoning_tokens INTEGER NOT NULL,
    cost_nanousd INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    duration_us INTEGER NOT NULL,
    first_token_us INTEGER NOT NULL,
    first_tokens INTEGER NOT NULL,
    feedback_count INTEGER NOT NULL,
    feedback_sum INTEGER NOT NULL,
    feedback_squares INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, day, user_id, key_id, model, provider, variant, kind)
) WITHOUT ROWID;
CREATE TABLE usage_latency (
    tenant_id TEXT NOT NULL,
    day TEXT NOT NULL,
    model TEXT NOT NULL,
    provider TEXT NOT NULL,
    variant TEXT NOT NULL,
    measure TEXT NOT NULL,
    le_0 INTEGER NOT NULL,
    le_1 INTEGER NOT NULL,
    le_2 INTEGER NOT NULL,
    le_3 INTEGER NOT NULL,
    le_4 INTEGER NOT NULL,
    le_5 INTEGER NOT NULL,
    le_6 INTEGER NOT NULL,
    le_7 INTEGER NOT NULL,
    le_8 INTEGER NOT NULL,
    le_9 INTEGER NOT NULL,
    le_10 INTEGER NOT NULL,
    le_11 INTEGER NOT NULL,
    le_12 INTEGER NOT NULL,
    le_13 INTEGER NOT NULL,
    le_14 INTEGER NOT NULL,
    le_15 INTEGER NOT NULL,
    le_16 INTEGER NOT NULL,
    le_17 INTEGER NOT NULL,
    le_18 INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, day, model, provider, variant, measure)
) WITHOUT ROWID;
CREATE TABLE usage_feedback (
    tenant_id TEXT NOT NULL,
    call_id TEXT NOT NULL,
    user_id TEXT NOT NULL,
    score INTEGER NOT NULL,
    comment TEXT,
    model TEXT NOT NULL,
    variant TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (tenant_id, call_id, user_id)
) WITHOUT ROWID;
