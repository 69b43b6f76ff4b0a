-- Every writer's row of one key goes: reconcile writes its own, or none.
DELETE FROM campaign_minute
WHERE hour = ?1 AND campaign_id = ?2 AND currency = ?3 AND minute = ?4
