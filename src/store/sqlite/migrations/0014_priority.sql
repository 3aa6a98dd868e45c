-- How urgent the runs of a session are at most.
ALTER TABLE sessions ADD COLUMN priority TEXT;
