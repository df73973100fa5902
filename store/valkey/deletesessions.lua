-- Forgets all entries of an index. KEYS: the index. Answers with 1.

for _, entry in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
	forget(entry)
end
redis.call('DEL', KEYS[1])
return {1}
