-- What the scripts of sessions begin with.
--
-- An entry is a hash of its content, of when it expires and of the names of its indexes. An
-- index is a sorted set of the names of entries, by when they were put. All are in one slot, so
-- a script may go from one to the other.

-- forget forgets an entry.
local function forget(entry)
	for index in string.gmatch(redis.call('HGET', entry, 'indexes') or '', '[^\n]+') do
		redis.call('ZREM', index, entry)
	end
	redis.call('DEL', entry)
end

-- keep keeps an entry or an index for so many milliseconds, and never for less than before.
local function keep(key, milliseconds)
	if redis.call('PTTL', key) < tonumber(milliseconds) then
		redis.call('PEXPIRE', key, milliseconds)
	end
end
