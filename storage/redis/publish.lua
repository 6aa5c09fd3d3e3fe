-- Publishes a message once, stored before if it is to be kept.
-- KEYS: the channel; the history's stream, if stored; where the outcome is remembered, if there is an idempotency key;
-- the interest channels of the patterns that match, if any
-- ARGV: the envelope; how long to remember the outcome in ms (0: no key); how many messages the history keeps (0: not
-- stored); and, if stored: for how long at most in ms, how long this one is worth keeping in ms (0: no such limit), the
-- epoch if the history begins, and the message: from, id, time, content, payload
-- Returns: how many received it, its offset and epoch ('': not stored), 1 when this is an earlier outcome, else 0

-- On a cluster the stream has another slot than the channel: there this function would be a script of its own, called
-- first, and the rest would get the completed envelope.
local function store(stream)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local ms, n, epoch = now, 1, ARGV[6]
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if last then
    local last_ms, last_n = string.match(last[1], '^(%d+)-(%d+)$')
    ms = math.max(now, tonumber(last_ms))
    n = tonumber(last_n) + 1
    for i = 1, #last[2], 2 do
      if last[2][i] == 'epoch' then epoch = last[2][i + 1] end
    end
  else
    -- An emptied stream still remembers its last ID.
    redis.call('DEL', stream)
  end

  local offset = string.format('%.0f-%.0f', ms, n)
  local entry = {'XADD', stream, 'MAXLEN', ARGV[3], offset, 'epoch', epoch, 'from', ARGV[7], 'id', ARGV[8],
    'time', ARGV[9], 'content', ARGV[10], 'payload', ARGV[11]}
  if ARGV[5] ~= '0' then
    entry[#entry + 1] = 'expires'
    entry[#entry + 1] = string.format('%.0f', now + ARGV[5])
  end
  redis.call(unpack(entry))
  redis.call('XTRIM', stream, 'MINID', string.format('%.0f', now - ARGV[4]))
  redis.call('PEXPIRE', stream, ARGV[4])
  return offset, epoch
end

local stored = ARGV[3] ~= '0'
local once = ARGV[2] ~= '0' and KEYS[stored and 3 or 2]
local known = once and redis.call('GET', once)
if known then
  local receivers, offset, epoch = string.match(known, '^(%d+) (%S*) (%S*)$')
  return {tonumber(receivers), offset, epoch, 1}
end

local envelope, offset, epoch = ARGV[1], '', ''
if stored then
  offset, epoch = store(KEYS[2])
  -- Two MessagePack str of less than 32 bytes complete it.
  envelope = envelope .. string.char(0xa0 + #offset) .. offset .. string.char(0xa0 + #epoch) .. epoch
end
local receivers = redis.call('PUBLISH', KEYS[1], envelope)
-- An instance that has the topic and a pattern is one. On a cluster these have other slots: there they are published
-- before this script, with what store() completed, and their count is one of its arguments.
for i = 2 + (stored and 1 or 0) + (once and 1 or 0), #KEYS do
  local topic = string.match(KEYS[1], '{([^{}]*)}$')
  receivers = math.max(receivers, redis.call('PUBLISH', KEYS[i], topic .. ' ' .. envelope))
end
if once then
  redis.call('SET', once, receivers .. ' ' .. offset .. ' ' .. epoch, 'PX', ARGV[2])
end
return {receivers, offset, epoch, 0}
