-- What a writer last told about itself.
INSERT INTO writer_status (writer, version, status)
VALUES (?1, ?2, ?3)
ON CONFLICT (writer) DO UPDATE SET version = excluded.version, status = excluded.status
WHERE excluded.version > writer_status.version
