-- The next generation of a writer.
INSERT INTO generation (writer, generation)
VALUES (?1, 1)
ON CONFLICT (writer) DO UPDATE SET generation = generation + 1
RETURNING generation
