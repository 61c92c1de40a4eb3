-- Exact amounts of USD, and what is set aside. A double holds integers up to 2^53 only, so an
-- amount is three of them: whole USD, which carry the sign, and twice nine decimals from 0 up.
local BASE = 1000000000
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local function read(text)
  if not text then
    return {0, 0, 0}
  end
  local whole, nano, atto = string.match(text, '^(%S+) (%S+) (%S+)$')
  return {tonumber(whole), tonumber(nano), tonumber(atto)}
end

local function write(usd)
  return string.format('%.0f %.0f %.0f', usd[1], usd[2], usd[3])
end

local function add(one, other, sign)
  local atto = one[3] + sign * other[3]
  local carry = math.floor(atto / BASE)
  local nano = one[2] + sign * other[2] + carry
  atto = atto - carry * BASE
  carry = math.floor(nano / BASE)
  return {one[1] + sign * other[1] + carry, nano - carry * BASE, atto}
end

local function is_less(one, other)
  for i = 1, 3 do
    if one[i] ~= other[i] then
      return one[i] < other[i]
    end
  end
  return false
end

-- What requests have reserved of a key or an account: a hash of amounts by generation id, their sum
-- among them, and a set of the ids by when they lapse.
local function release(held, lapses, id)
  local usd = redis.call('HGET', held, id)
  if usd then
    redis.call('HDEL', held, id)
    redis.call('ZREM', lapses, id)
    redis.call('HSET', held, 'sum', write(add(read(redis.call('HGET', held, 'sum')), read(usd), -1)))
  end
end

local function hold(held, lapses, id, usd, at)
  redis.call('HSET', held, id, write(usd),
    'sum', write(add(read(redis.call('HGET', held, 'sum')), usd, 1)))
  redis.call('ZADD', lapses, string.format('%.0f', at), id)
  for _, key in ipairs({held, lapses}) do -- both go when the last one has lapsed
    if redis.call('PTTL', key) < (at - now) / 1000 then
      redis.call('PEXPIREAT', key, math.ceil(at / 1000))
    end
  end
end

local function sum_of(held, lapses)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', lapses, '-inf', string.format('%.0f', now))) do
    release(held, lapses, id)
  end
  return read(redis.call('HGET', held, 'sum'))
end

-- Bought, used and reserved; nothing of an account that pays later.
local function balance(account, held, lapses)
  local bought = redis.call('HGET', account, 'bought')
  if not bought then
    return false
  end
  return {bought, redis.call('HGET', account, 'used'), write(sum_of(held, lapses))}
end
