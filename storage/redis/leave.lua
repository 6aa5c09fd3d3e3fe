-- Removes a session from a topic's presence, and tells the topic.
-- KEYS: the topic's presence, the topic's channel; ARGV: the session's name, the envelope
-- Returns: 1 when it was there, else 0
local gone = redis.call('HDEL', KEYS[1], ARGV[1])

if gone == 1 then
  redis.call('PUBLISH', KEYS[2], ARGV[2])
end
return gone
