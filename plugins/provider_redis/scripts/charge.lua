-- Replaces reservations by what requests cost; once for each event.
--
-- KEYS, six for each request: the event, the account, the key's spending by days, what requests
--   hold of the key and of the account, and the account's latest charges.
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

for i = 0, #KEYS / 6 - 1 do
  local event, account, spending = KEYS[6 * i + 1], KEYS[6 * i + 2], KEYS[6 * i + 3]
  local held_of_key, held_of_account, charges = KEYS[6 * i + 4], KEYS[6 * i + 5], KEYS[6 * i + 6]
  local id, amount, at = ARGV[5 * i + 3], ARGV[5 * i + 4], tonumber(ARGV[5 * i + 5])
  local day, note = ARGV[5 * i + 6], ARGV[5 * i + 7]
  if id ~= '' then
    redis.call('HDEL', held_of_key, id)
    redis.call('HDEL', held_of_account, id)
  end
  -- A day more than events are charged for, as clocks differ.
  if amount ~= '' and at > now - retention
      and redis.call('SET', event, 1, 'NX', 'PX', math.ceil(retention / 1000) + 86400000) then
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
