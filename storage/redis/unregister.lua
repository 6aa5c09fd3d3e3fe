-- Removes a session's hash while `conn` still holds the name.
-- KEYS: the session's hash; ARGV: conn
-- Returns: the topics in whose presence it was (encoded, '': none), or nil when there was nothing to remove
local hash = redis.call('HMGET', KEYS[1], 'conn', 'presence')

if hash[1] == ARGV[1] then
  redis.call('DEL', KEYS[1])
  return hash[2] or ''
end
return false
