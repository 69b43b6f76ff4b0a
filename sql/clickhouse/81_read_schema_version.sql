-- The newest migration that was applied.
SELECT toUInt64(max(schema_version.number)) AS number FROM schema_version
