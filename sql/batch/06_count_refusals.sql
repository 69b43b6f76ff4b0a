-- What was refused on the day (of ingest), by reason: it never became an event.
SELECT reason, SUM("count") AS refused
FROM bad
WHERE reason NOT IN ('tally', 'set_aside')
GROUP BY reason
