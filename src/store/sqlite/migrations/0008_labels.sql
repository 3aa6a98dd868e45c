-- Where a tool's output came from and whether it may be trusted: kept with it, so that a later run knows.
ALTER TABLE tool_calls ADD COLUMN label TEXT;
