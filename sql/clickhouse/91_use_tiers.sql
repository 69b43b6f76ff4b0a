-- The table may use the disks of the policy `tiered`: its volume `default` holds the disk of the same name, `cold` another.
ALTER TABLE {table:Identifier} MODIFY SETTING storage_policy = 'tiered'
