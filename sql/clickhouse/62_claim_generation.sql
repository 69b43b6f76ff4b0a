-- A writer asks for a generation.
INSERT INTO generation (writer, generation, claim)
SELECT {writer:UInt32}, {generation:UInt32}, {claim:UInt64}
