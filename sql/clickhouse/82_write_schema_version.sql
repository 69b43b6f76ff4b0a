-- A migration was applied.
INSERT INTO schema_version (number) SELECT {number:UInt32}
