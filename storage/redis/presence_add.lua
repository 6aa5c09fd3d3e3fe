-- Notes in a session's hash that it is in a topic's presence, so that whoever removes the session knows.
-- KEYS: the session's hash; ARGV: conn, the topic's encoded name
-- Returns: 1 when noted, 0 when there is no such session, -1 when another conn holds its name
local hash = redis.call('HMGET', KEYS[1], 'conn', 'presence')

if not hash[1] then
  return 0
elseif hash[1] ~= ARGV[1] then
  return -1
end
local topics = hash[2] or ''
if not string.find(' ' .. topics .. ' ', ' ' .. ARGV[2] .. ' ', 1, true) then
  redis.call('HSET', KEYS[1], 'presence', topics == '' and ARGV[2] or topics .. ' ' .. ARGV[2])
end
return 1
