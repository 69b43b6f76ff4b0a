-- The store's own database.
CREATE DATABASE IF NOT EXISTS {name:Identifier}
