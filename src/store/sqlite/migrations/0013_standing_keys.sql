-- What goes on by itself is held to the key that made it: its end, its limits, its budget.
ALTER TABLE schedules ADD COLUMN key_id TEXT;
ALTER TABLE webhooks ADD COLUMN key_id TEXT;
