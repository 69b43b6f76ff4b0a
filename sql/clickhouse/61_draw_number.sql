-- A number that nobody else has, greater than any drawn before.
SELECT generateSnowflakeID() AS number
