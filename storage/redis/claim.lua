-- Claims a dead instance for reaping: its lease runs anew, so that another claims it should the reaper die too.
-- KEYS: the set of instances; ARGV: id, lease in ms
-- Returns: 1 when claimed, 0 when it lives, is gone or was claimed by another
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local score = redis.call('ZSCORE', KEYS[1], ARGV[1])

if score and tonumber(score) < now - ARGV[2] then
  -- The dead are removed when memory is full too, which frees some: ZREM is never refused for it, nor what follows.
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('ZADD', KEYS[1], now, ARGV[1])
  return 1
end
return 0
