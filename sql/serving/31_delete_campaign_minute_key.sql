-- Every writer's row of one key goes: reconcile writes its own, or none.
DELETE FROM campaign_minute
WHERE hour = ?1 AND campaign_id = ?2 AND minute = ?3 AND currency = ?4
