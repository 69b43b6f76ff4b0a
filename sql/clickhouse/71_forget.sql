-- Forgets the rows of a grain up to a key, and what they hid, in one of the tables that hold rows.
DELETE FROM {table:Identifier}
WHERE grain = {grain:String} AND hour <= toDateTime({hour:UInt32}, 'UTC')
    AND (hour, ad_id, campaign_id, window_start, toString(country), toString(device_type), toString(currency), writer)
        <= (toDateTime({hour:UInt32}, 'UTC'), {ad_id:String}, {campaign_id:String}, toDateTime({window_start:UInt32}, 'UTC'),
            {country:String}, {device_type:String}, {currency:String}, {writer:Int64})
