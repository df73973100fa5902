-- Changes the content of an entry.
--
-- KEYS: the entry. ARGV: the old content, the new one. Answers with 1, or with 0 if there is no
-- entry with the old one.

if redis.call('HGET', KEYS[1], 'sealed') ~= ARGV[1] then
	return {0}
end
redis.call('HSET', KEYS[1], 'sealed', ARGV[2])
return {1}
