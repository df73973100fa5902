-- Forgets an entry. KEYS: the entry. Answers with 1.

forget(KEYS[1])
return {1}
