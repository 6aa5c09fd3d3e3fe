-- Removes a session from its user's hash, unless it has moved to another instance.
-- KEYS: the user's hash; ARGV: session, instance
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then
  return redis.call('HDEL', KEYS[1], ARGV[1])
end
return 0
