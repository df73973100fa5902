-- Gets an entry.
--
-- KEYS: the entry. Answers with 1, when it expires, and its content; or with 0.

local found = redis.call('HMGET', KEYS[1], 'expires', 'sealed')
if not found[1] then
	return {0}
end
return {1, tonumber(found[1]), found[2]}
