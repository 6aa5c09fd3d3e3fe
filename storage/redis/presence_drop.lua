-- Notes in a session's hash that it left a topic's presence.
-- KEYS: the session's hash; ARGV: conn, the topic's encoded name
-- Returns: 1 when it may leave, 0 when the successor that holds its name is in that presence
local hash = redis.call('HMGET', KEYS[1], 'conn', 'presence')
local kept, found = {}, false

for topic in string.gmatch(hash[2] or '', '%S+') do
  if topic == ARGV[2] then
    found = true
  else
    kept[#kept + 1] = topic
  end
end
if hash[1] ~= ARGV[1] then
  return found and 0 or 1
elseif #kept > 0 then
  -- It only gets shorter: when memory is full too, for HDEL is never refused for that, nor what follows.
  redis.call('HDEL', KEYS[1], 'presence')
  redis.call('HSET', KEYS[1], 'presence', table.concat(kept, ' '))
else
  redis.call('HDEL', KEYS[1], 'presence')
end
return 1
