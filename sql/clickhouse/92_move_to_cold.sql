-- Days move to the cold volume by themselves.
ALTER TABLE {table:Identifier} MODIFY TTL hour + toIntervalDay({days:UInt32}) TO VOLUME 'cold'
