-- Reconcile takes an hour.
INSERT INTO owned_hour (hour, version)
VALUES (?1, ?2)
ON CONFLICT (hour) DO UPDATE SET version = excluded.version
