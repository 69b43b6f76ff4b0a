-- Every writer's row of one key goes: reconcile writes its own, or none.
DELETE FROM campaign_hour
WHERE hour = ?1 AND campaign_id = ?2 AND country = ?3 AND device_type = ?4 AND currency = ?5
