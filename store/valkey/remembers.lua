-- What the scripts of tickets begin with.
--
-- A lineage is at home in one process of a server, for as long as that is a primary: in
-- run_id for the one, in master_replid for the other. Neither survives a restart or a
-- promotion, even if the data do; and data that were read from a disk or a primary may
-- lack what was honoured last.

local function says(section, name)
	return string.match(redis.call('INFO', section), name .. ':(%w+)')
end

local function home()
	return says('server', 'run_id') .. says('replication', 'master_replid')
end

local function remembers(key, id)
	local found, at = unpack(redis.call('HMGET', key, 'id', 'home'))
	return found == id and at == home()
end

