-- A writer tells about itself.
INSERT INTO writer_status (writer, version, status)
SELECT {writer:UInt32}, {version:UInt64}, {status:String}
