-- Reads stored messages, a bounded part at a time.
-- KEYS: the stream; ARGV: the offset to go on from ('': none) and its epoch ('': unknown), how many messages, '1' for
-- the newest first, for how long at most a message is kept in ms, how many bytes
-- Returns: the oldest and the newest offset, the epoch, where to go on ('': that was all); then the entries
local PIECE, VISITS = 16, 4000
local stream, reverse = KEYS[1], ARGV[4] == '1'
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
-- What is older is left out, not removed: reading writes nothing, and so is never refused.
local oldest = string.format('%.0f', now - ARGV[5])

local first = redis.call('XRANGE', stream, oldest, '+', 'COUNT', 1)[1]
local last = redis.call('XREVRANGE', stream, '+', oldest, 'COUNT', 1)[1]
if not first then
  return {'', '', '', ''}
end

local function field(entry, name)
  for i = 1, #entry[2], 2 do
    if entry[2][i] == name then return entry[2][i + 1] end
  end
end

local epoch = field(last, 'epoch') or ''
local at = ARGV[1]
if ARGV[2] ~= '' and ARGV[2] ~= epoch then
  at = ''
end
if not reverse and at ~= '' and tonumber(string.match(at, '^%d+')) < now - ARGV[5] then
  at = ''
end
local left, bytes, visits, ended = tonumber(ARGV[3]), tonumber(ARGV[6]), VISITS, false
-- Pieces grow as long as the messages are small: what is copied here is not much more than what is returned.
local piece = 1
local reply = {first[1], last[1], epoch, ''}

while left > 0 and bytes > 0 and visits > 0 and not ended do
  local entries
  if reverse then
    entries = redis.call('XREVRANGE', stream, at == '' and '+' or '(' .. at, oldest, 'COUNT', piece)
  else
    entries = redis.call('XRANGE', stream, at == '' and oldest or '(' .. at, '+', 'COUNT', piece)
  end
  ended = #entries < piece
  local before = bytes
  for i, entry in ipairs(entries) do
    local expires = field(entry, 'expires')
    at = entry[1]
    if not expires or tonumber(expires) > now then
      reply[#reply + 1] = entry
      left = left - 1
      for j = 1, #entry[2] do bytes = bytes - #entry[2][j] end
      if left == 0 or bytes <= 0 then
        ended = ended and i == #entries
        break
      end
    end
  end
  visits = visits - piece
  if (before - bytes) * 4 < bytes then piece = math.min(piece * 2, PIECE) else piece = 1 end
end
if not ended and at ~= (reverse and first[1] or last[1]) then
  reply[4] = at
end
return reply
