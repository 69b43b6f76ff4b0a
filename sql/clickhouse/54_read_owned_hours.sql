-- The hours reconcile owns, with the versions that took them.
SELECT at, version, take
FROM newest_mark
WHERE kind = 'hour' AND at >= toDateTime({first:UInt32}, 'UTC') AND at < toDateTime({end:UInt32}, 'UTC')
