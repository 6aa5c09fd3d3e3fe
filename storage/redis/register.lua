-- Makes ARGV's connection the holder of a session's name and tells the previous holder.
-- KEYS: the session's hash, whose name is the session's channel too
-- ARGV: notice ('': none), '1' to restore, conn, instance, route, user, face, remote, agent, connected_at
-- Returns: 1 when a newer holder was left alone, 2 when the name can't be this conn's, else 0; and, if somebody held it: the previous conn, instance and user
-- ('': none); how many received the notice; the topics in whose presence the previous conn was (encoded, '': none)

local function write()
  redis.call('HSET', KEYS[1], 'conn', ARGV[3], 'instance', ARGV[4], 'route', ARGV[5], 'user', ARGV[6],
    'face', ARGV[7], 'remote', ARGV[8], 'agent', ARGV[9], 'connected_at', ARGV[10])
end

-- A name with a ~ is a shared session's, whose conn stands behind the ~. Nobody replaces it, and it gives way to nothing
-- that somebody wrote here.
local name = string.match(KEYS[1], '{([^{}]*)}$') or ''
local shared = string.find(name, '~', 1, true) ~= nil
if shared and string.sub(name, -1 - #ARGV[3]) ~= '~' .. ARGV[3] then
  return {2}
end

-- Most names are nobody's; this is then what a connection costs Redis.
if redis.call('EXISTS', KEYS[1]) == 0 then
  write()
  if ARGV[1] ~= '' then
    redis.call('PUBLISH', KEYS[1], ARGV[1])
  end
  return {0}
end

if shared and redis.call('HGET', KEYS[1], 'conn') ~= ARGV[3] then
  -- Written twice: what Redis may refuse comes before what removes.
  write()
  redis.call('DEL', KEYS[1])
  write()
  return {0}
end

local old = redis.call('HMGET', KEYS[1], 'conn', 'instance', 'user', 'connected_at', 'presence')
local conn = old[1] or ''
local ours = conn == ARGV[3]
local restore = ARGV[2] == '1'

if restore and conn ~= '' and not ours and (old[4] or '') > ARGV[10] then
  return {1, conn, old[2] or '', old[3] or '', 0, ''}
end

-- The first write is the one that Redis may refuse, because its memory is full: then nothing has changed.
write()
if not ours and old[5] then
  redis.call('HDEL', KEYS[1], 'presence')
end

local receivers = 0
if ARGV[1] ~= '' and not (restore and ours) then
  receivers = redis.call('PUBLISH', KEYS[1], ARGV[1])
elseif conn ~= '' and not ours then
  receivers = redis.call('PUBSUB', 'NUMSUB', KEYS[1])[2]
end
return {0, conn, old[2] or '', old[3] or '', tonumber(receivers),
  not ours and old[5] or ''}
