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

-- What requests have reserved, but one; those that lapsed are forgotten.
local function held(key, but)
  local sum = {0, 0, 0}
  local found = redis.call('HGETALL', key)
  for i = 1, #found, 2 do
    local lapses, usd = string.match(found[i + 1], '^(%S+) (.*)$')
    if tonumber(lapses) < now then
      redis.call('HDEL', key, found[i])
    elseif found[i] ~= but then
      sum = add(sum, read(usd), 1)
    end
  end
  return sum
end

-- Bought, used and reserved; nothing of an account that pays later.
local function balance(account, held_key)
  local bought = redis.call('HGET', account, 'bought')
  if not bought then
    return false
  end
  local used = read(redis.call('HGET', account, 'used'))
  return {bought, write(used), write(held(held_key))}
end
