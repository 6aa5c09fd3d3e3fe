-- Lists the topics that are subscribed to.
-- KEYS: what their channels begin with; ARGV: the same as a pattern, how many to return
-- Returns: how many there are; of the first ones the channel and how many subscribe to it
local PIECE = 1000
local channels = redis.call('PUBSUB', 'CHANNELS', ARGV[1])
local count = math.min(#channels, tonumber(ARGV[2]))
local reply = {#channels}

for from = 1, count, PIECE do
  for _, value in ipairs(redis.call('PUBSUB', 'NUMSUB', unpack(channels, from, math.min(from + PIECE - 1, count)))) do
    reply[#reply + 1] = value
  end
end
return reply
