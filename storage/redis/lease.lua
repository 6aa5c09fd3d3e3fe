-- Reads the instances' leases.
-- KEYS: the set of instances; ARGV: lease in ms
-- Returns: the ids whose lease runs, each followed by how many ms it has left
local time = redis.call('TIME')
local oldest = time[1] * 1000 + math.floor(time[2] / 1000) - ARGV[1]
local reply = redis.call('ZRANGEBYSCORE', KEYS[1], oldest, '+inf', 'WITHSCORES')

for i = 2, #reply, 2 do
  reply[i] = tonumber(reply[i]) - oldest
end
return reply
