-- Adds a session to a topic's presence, and tells the topic when it is new there.
-- KEYS: the topic's presence, the topic's channel; ARGV: the session's name, its user, the envelope
-- Returns: 1 when it is new, 0 when it was there
local new = redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])

if new == 1 then
  redis.call('PUBLISH', KEYS[2], ARGV[3])
end
return new
