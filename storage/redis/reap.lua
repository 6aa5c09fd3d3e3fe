-- Removes a session's hash while it belongs to a dead instance.
-- KEYS: the session's hash; ARGV: the instance
-- Returns: the session's user ('': none) and the topics in whose presence it was (encoded, '': none), or nil when
-- there was nothing to remove
local hash = redis.call('HMGET', KEYS[1], 'instance', 'user', 'presence')

if hash[1] == ARGV[1] then
  redis.call('DEL', KEYS[1])
  return {hash[2] or '', hash[3] or ''}
end
return false
