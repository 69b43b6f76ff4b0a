-- Others that asked for the same generation.
SELECT count() AS number
FROM generation
WHERE writer = {writer:UInt32} AND generation = {generation:UInt32} AND claim != {claim:UInt64}
