-- Publishes a message once, stored before if it is to be kept.
-- KEYS: the channel; where the outcome is remembered, if there is an idempotency key; and, if stored: the history's
-- stream; the ledger of all that is stored; the sender's; then the interest channels of the patterns that match, if any
-- ARGV: the envelope; how long to remember the outcome in ms (0: no key); how many messages the history keeps (0: not
-- stored); and, if stored: for how long at most in ms, how many bytes; how long this one is worth keeping in ms (0: no
-- such limit), the epoch if the history begins, the message: from, id, time, content, payload; the sender, as its
-- ledger's name ends; the most addresses and bytes in the ledger of all, and in the sender's
-- Returns: how many received it, its offset and epoch ('': not stored), 1 when this is an earlier outcome, else 0; or -1
-- and the limit that would be passed

-- Redis checks its memory, its disk and its replicas before a script's first write only. So the first write is the one
-- that may be refused, and whatever is refused has changed nothing.

-- What a message counts for besides its sender and payload, and how much is done at most for one message.
local OVERHEAD, DROPS, LAPSES = 512, 1000, 16

-- A ledger is a hash: the bytes at each address and when it lapses, 'BYTES DUE'; and 'bytes', their sum. Beside it stands
-- a sorted set of the addresses by when they lapse. The time is renewed with an eighth of the age to spare, so that few
-- messages have to.
local function parse(value)
  return tonumber(string.match(value, '^%d+')), tonumber(string.match(value, '%d+$'))
end

-- On a cluster the ledgers have other slots than the channel, its history and its outcomes: there booking would be a
-- script of its own, called first.
local function store(stream, all, own)
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local age, sender, address = tonumber(ARGV[4]), ARGV[13], string.sub(KEYS[1], #all - 5)
  local life, size = age + math.ceil(age / 8), OVERHEAD + #ARGV[8] + #ARGV[12]

  local function field(entry, name)
    for i = 1, #entry[2], 2 do
      if entry[2][i] == name then return entry[2][i + 1] end
    end
  end

  -- Looks for what has lapsed; it goes when the ledger is written.
  local function lapse(ledger)
    if ledger.lapsed then return end
    ledger.lapsed = redis.call('ZRANGEBYSCORE', ledger.key .. ':due', '-inf', now, 'LIMIT', 0, LAPSES)
    ledger.count = redis.call('ZCARD', ledger.key .. ':due') - #ledger.lapsed
    if #ledger.lapsed == 0 then return end
    for i, value in ipairs(redis.call('HMGET', ledger.key, unpack(ledger.lapsed))) do
      ledger.sum = ledger.sum - (value and parse(value) or 0)
      if ledger.lapsed[i] == address then ledger.here = nil end
    end
  end

  local function read(key)
    local values = redis.call('HMGET', key, 'bytes', address)
    local ledger = {key = key, sum = tonumber(values[1] or 0), due = 0}
    if values[2] then
      ledger.here, ledger.due = parse(values[2])
    end
    if ledger.due < now + age then
      ledger.renew = true
      lapse(ledger)
    end
    return ledger
  end

  local function forget_lapsed(ledger)
    if ledger.lapsed and #ledger.lapsed > 0 then
      redis.call('HDEL', ledger.key, unpack(ledger.lapsed))
      redis.call('ZREM', ledger.key .. ':due', unpack(ledger.lapsed))
    end
  end

  -- Whether the ledger may say so many bytes of this address; otherwise the limit that this would pass.
  local function plan(ledger, bytes, most_addresses, most_bytes, which_addresses, which_bytes)
    ledger.bytes, ledger.grown = bytes, bytes - (ledger.here or 0)
    if not ledger.here and ledger.count >= tonumber(most_addresses) then
      return which_addresses
    elseif ledger.grown > 0 and ledger.sum + ledger.grown > tonumber(most_bytes) then
      lapse(ledger)
      if ledger.sum + ledger.grown > tonumber(most_bytes) then return which_bytes end
    end
  end

  local function write(ledger)
    forget_lapsed(ledger)
    if ledger.renew then
      ledger.due = now + life
      redis.call('ZADD', ledger.key .. ':due', ledger.due, address)
      redis.call('PEXPIRE', ledger.key .. ':due', life)
    end
    if ledger.renew or ledger.grown ~= 0 or #(ledger.lapsed or {}) > 0 then
      redis.call('HSET', ledger.key, 'bytes', string.format('%.0f', math.max(ledger.sum + ledger.grown, 0)), address,
        string.format('%.0f %.0f', ledger.bytes, ledger.due))
    end
    if ledger.renew then
      redis.call('PEXPIRE', ledger.key, life)
    end
  end

  -- Another sender's message left the history.
  local function credit(key, bytes)
    local value = redis.call('HGET', key, address)
    if not value then return end
    local before, due = parse(value)
    if before > bytes then
      redis.call('HSET', key, address, string.format('%.0f %.0f', before - bytes, due))
    else
      bytes = before
      redis.call('HDEL', key, address)
      redis.call('ZREM', key .. ':due', address)
    end
    if redis.call('HINCRBY', key, 'bytes', -bytes) <= 0 and redis.call('EXISTS', key .. ':due') == 0 then
      redis.call('DEL', key)
    end
  end

  local ms, n, epoch, length = now, 1, ARGV[7], 0
  local last = redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 1)[1]
  if last then
    local last_ms, last_n = string.match(last[1], '^(%d+)-(%d+)$')
    -- One whose newest message is too old begins anew, though it isn't gone yet.
    if tonumber(last_ms) >= now - age then
      ms = math.max(now, tonumber(last_ms))
      n = tonumber(last_n) + 1
      epoch = field(last, 'epoch') or epoch
    end
    length = redis.call('XLEN', stream)
  end

  -- What goes for it: the oldest, by count and bytes, and now and then by age.
  local ledgers = {read(all), read(own)}
  local here = last and ledgers[1].here or 0
  local excess, oldest = length + 1 - ARGV[3], last and ledgers[1].renew and string.format('%.0f', now - age - 1)
  local dropped, bytes, senders, from, up_to = 0, 0, {}, '-', nil
  while dropped < DROPS do
    local needed = dropped < excess or last and here - bytes + size > tonumber(ARGV[5])
    if not needed and not oldest then break end
    local entry = redis.call('XRANGE', stream, from, needed and '+' or oldest, 'COUNT', 1)[1]
    if not entry then break end
    local its, by = OVERHEAD + #(field(entry, 'from') or '') + #(field(entry, 'payload') or ''), field(entry, 'by')
    if by then senders[by] = (senders[by] or 0) + its end
    dropped, bytes, up_to = dropped + 1, bytes + its, entry[1]
    from = '(' .. up_to
  end

  local refused
  if size > tonumber(ARGV[5]) then
    refused = 'history_bytes'
  else
    local kept = last and math.max((ledgers[2].here or 0) - (senders[sender] or 0), 0) or 0
    refused = plan(ledgers[1], math.max(here - bytes, 0) + size, ARGV[14], ARGV[15], 'stored_addresses',
      'stored_bytes') or plan(ledgers[2], kept + size, ARGV[16], ARGV[17], 'sender_addresses', 'sender_bytes')
  end
  if refused then
    -- Whether or not anything is stored again: what has lapsed is let go of.
    for _, ledger in ipairs(ledgers) do
      if ledger.lapsed and #ledger.lapsed > 0 then
        forget_lapsed(ledger)
        redis.call('HSET', ledger.key, 'bytes', string.format('%.0f', math.max(ledger.sum, 0)))
      end
    end
    return nil, refused
  end

  -- An emptied stream still remembers its last ID. (This too is refused when memory is full.)
  if not last and redis.call('EXISTS', stream) == 1 then
    redis.call('XSETID', stream, '0-0')
  end
  local offset = string.format('%.0f-%.0f', ms, n)
  local entry = {'XADD', stream, offset, 'epoch', epoch, 'from', ARGV[8], 'id', ARGV[9], 'time', ARGV[10],
    'content', ARGV[11], 'payload', ARGV[12], 'by', sender}
  if ARGV[6] ~= '0' then
    entry[#entry + 1] = 'expires'
    entry[#entry + 1] = string.format('%.0f', now + ARGV[6])
  end
  redis.call(unpack(entry))

  if up_to then
    local up_to_ms, up_to_n = string.match(up_to, '^(%d+)-(%d+)$')
    redis.call('XTRIM', stream, 'MINID', up_to_ms .. '-' .. string.format('%.0f', up_to_n + 1))
  end
  if ledgers[1].renew or not last then
    redis.call('PEXPIRE', stream, life)
  end
  write(ledgers[1])
  write(ledgers[2])
  for by, less in pairs(senders) do
    if by ~= sender then credit(all .. ':' .. by, less) end
  end
  return offset, epoch
end

local stored = ARGV[3] ~= '0'
local once = ARGV[2] ~= '0' and KEYS[2]
local known = once and redis.call('GET', once)
if known then
  local receivers, offset, epoch = string.match(known, '^(%d+) (%S*) (%S*)$')
  return {tonumber(receivers), offset, epoch, 1}
end

local envelope, offset, epoch = ARGV[1], '', ''
if stored then
  local first = once and 3 or 2
  offset, epoch = store(KEYS[first], KEYS[first + 1], KEYS[first + 2])
  if not offset then
    return {-1, epoch}
  end
  -- Two MessagePack str of less than 32 bytes complete it.
  envelope = envelope .. string.char(0xa0 + #offset) .. offset .. string.char(0xa0 + #epoch) .. epoch
elseif once then
  -- PUBLISH is no write: what is refused afterwards would have been delivered.
  redis.call('SET', once, '0  ', 'PX', ARGV[2])
end
local receivers = redis.call('PUBLISH', KEYS[1], envelope)
-- An instance that has the topic and a pattern is one. On a cluster these have other slots: there they are published
-- before this script, with what store() completed, and their count is one of its arguments.
for i = 2 + (stored and 3 or 0) + (once and 1 or 0), #KEYS do
  local topic = string.match(KEYS[1], '{([^{}]*)}$')
  receivers = math.max(receivers, redis.call('PUBLISH', KEYS[i], topic .. ' ' .. envelope))
end
if once then
  redis.call('SET', once, receivers .. ' ' .. offset .. ' ' .. epoch, 'PX', ARGV[2])
end
return {receivers, offset, epoch, 0}
