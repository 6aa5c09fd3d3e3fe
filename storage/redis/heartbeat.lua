-- Renews an instance's lease and looks for leases that ran out.
-- KEYS: the set of instances; ARGV: id, lease in ms, how many expired ids to return
-- Returns: 1 when the instance wasn't known, else 0; 1 when its own lease had run out, else 0; ms until the next
-- lease can run out (-1: none but its own); why Redis refuses what may grow ('': it doesn't); the ids whose lease ran out
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local oldest = now - ARGV[2]
local mine = redis.call('ZSCORE', KEYS[1], ARGV[1])
local late = mine and tonumber(mine) < oldest

-- The first write of a script is refused like any other: so this says whether Redis takes writes. A lease doesn't grow,
-- and goes on while memory is full: ZREM is never refused for that, nor is what follows it.
local written = redis.pcall('ZADD', KEYS[1], now, ARGV[1])
local refused = type(written) == 'table' and written.err or ''
if string.find(refused, '^%-?OOM') then
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('ZADD', KEYS[1], now, ARGV[1])
elseif refused ~= '' then
  return written
end

local reply = {mine and 0 or 1, late and 1 or 0, -1, refused}
local first = redis.call('ZRANGEBYSCORE', KEYS[1], oldest, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
if first[1] and first[1] ~= ARGV[1] then
  reply[3] = tonumber(first[2]) - oldest
end
-- One whose own lease ran out can't tell who is dead: everybody may have been cut off.
if not late then
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. oldest, 'LIMIT', 0, ARGV[3])) do
    reply[#reply + 1] = id
  end
end
return reply
