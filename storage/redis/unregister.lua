-- Removes a session's hash while `conn` still holds the name.
-- KEYS: the session's hash; ARGV: conn
-- Returns: 1 when it was removed, else 0
if redis.call('HGET', KEYS[1], 'conn') == ARGV[1] then
  return redis.call('DEL', KEYS[1])
end
return 0
