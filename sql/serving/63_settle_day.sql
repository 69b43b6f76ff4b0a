-- A day is published.
INSERT INTO settled_day (day, version)
VALUES (?1, ?2)
ON CONFLICT (day) DO UPDATE SET version = MAX(version, excluded.version)
