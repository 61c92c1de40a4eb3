-- Replaces reservations by what requests cost; once for each event.
--
-- KEYS, nine for each request: the event, the account, its latest charges, the key's spending by
--   days, what requests hold of the key, when that lapses, both of the account, and the event that
--   this one adjusts. An event is known by the day on which its request was billed, which is where
--   an adjustment belongs: what is given back the day after widens no other day.
-- ARGV: microseconds for which events are known, how many charges of an account are kept, and five
--   for each request: generation id ('' if nothing is reserved), USD ('' if there is nothing to
--   charge), when in microseconds, on which day since 1970, and the charge in JSON.
-- Returns how many were charged.
local DAYS_KEPT = 40 -- a month is the longest that a limit looks back
local retention, num_kept = tonumber(ARGV[1]), tonumber(ARGV[2])
local num_charged = 0

local function note_spending(spending, day, usd)
  for _, field in ipairs({'all', day}) do
    redis.call('HSET', spending, field, write(add(read(redis.call('HGET', spending, field)), usd, 1)))
  end
  if redis.call('HLEN', spending) > 2 * DAYS_KEPT then
    for _, field in ipairs(redis.call('HKEYS', spending)) do
      if field ~= 'all' and tonumber(field) < tonumber(day) - DAYS_KEPT then
        redis.call('HDEL', spending, field)
      end
    end
  end
end

for i = 0, #KEYS / 9 - 1 do
  local event, account, charges, spending = unpack(KEYS, 9 * i + 1, 9 * i + 4)
  local id, amount, at, day, note = unpack(ARGV, 5 * i + 3, 5 * i + 7)
  if id ~= '' then
    release(KEYS[9 * i + 5], KEYS[9 * i + 6], id)
    release(KEYS[9 * i + 7], KEYS[9 * i + 8], id)
  end
  day = redis.call('GET', KEYS[9 * i + 9]) or day
  -- A day more than events are charged for, as clocks differ.
  if amount ~= '' and tonumber(at) > now - retention
      and redis.call('SET', event, day, 'NX', 'PX', math.ceil(retention / 1000) + 86400000) then
    local usd = read(amount)
    note_spending(spending, day, usd)
    local used = redis.call('HGET', account, 'used')
    if used then
      redis.call('HSET', account, 'used', write(add(read(used), usd, 1)))
      redis.call('LPUSH', charges, note)
      redis.call('LTRIM', charges, 0, num_kept - 1)
    end
    num_charged = num_charged + 1
  end
end
return num_charged
