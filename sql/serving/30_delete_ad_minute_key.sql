-- Every writer's row of one key goes: reconcile writes its own, or none.
DELETE FROM ad_minute
WHERE hour = ?1 AND ad_id = ?2 AND minute = ?3 AND campaign_id = ?4 AND currency = ?5
