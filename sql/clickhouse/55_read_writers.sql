-- What every writer last told about itself.
SELECT writer, argMax(writer_status.status, writer_status.version) AS status
FROM writer_status
GROUP BY writer
ORDER BY writer
