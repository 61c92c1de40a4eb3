-- Sets money aside for a request if it is there.
--
-- KEYS: the account, the key's spending by days, what requests hold of the key, when that lapses,
--   both of the account, and the ledger, which has its id and every account that has ever paid.
-- ARGV: generation id, USD, microseconds until it lapses, the key's limit in USD ('' for none), when
--   that begins anew ('', daily, weekly, monthly), 1 if there is an account, and the ledger's id.
-- Returns the answer (reserved, later, lost, or what refused: key, account), what the key has used
--   since which day, and what the account has bought and used.
local DAY = 86400 * 1000000
local account, spending = KEYS[1], KEYS[2]
local of_key, of_account = {KEYS[3], KEYS[4]}, {KEYS[5], KEYS[6]}
local id, usd, until_then = ARGV[1], read(ARGV[2]), now + tonumber(ARGV[3])
local reset = ARGV[5]
local today = math.floor(now / DAY) -- since 1970-01-01, a Thursday

local function day_of_month(day) -- from 0; years begin in March, as the leap day is their last
  local of_era = (day + 719468) % 146097
  local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524)
    - math.floor(of_era / 146096)) / 365)
  local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
  local month = math.floor((5 * of_year + 2) / 153)
  return of_year - math.floor((153 * month + 2) / 5)
end

local function spent(first_day)
  local sum = {0, 0, 0}
  for day = first_day, today do
    local usd = read(redis.call('HGET', spending, day))
    if is_less({0, 0, 0}, usd) then -- else more was given back, of a bill that is no longer known
      sum = add(sum, usd, 1)
    end
  end
  return sum
end

local ledger = KEYS[7]
local birth, has_paid = unpack(redis.call('HMGET', ledger, 'birth', account))
if birth ~= ARGV[7] then
  return {'lost'}
end

release(of_key[1], of_key[2], id) -- of an answer that was lost on its way
release(of_account[1], of_account[2], id)

local is_limited = ARGV[4] ~= ''
local used, since = {0, 0, 0}, ''
if is_limited then
  local limit = read(ARGV[4])
  if reset == '' then
    used = read(redis.call('HGET', spending, 'all'))
  else
    since = today
    if reset == 'weekly' then
      since = today - (today + 3) % 7
    elseif reset == 'monthly' then
      since = today - day_of_month(today)
    end
    used = spent(since)
  end
  local left = add(add(limit, used, -1), sum_of(of_key[1], of_key[2]), -1)
  if is_less(left, usd) or not is_less({0, 0, 0}, left) then
    return {'key'}
  end
end

local bought = false
if ARGV[6] == '1' then
  bought = redis.call('HGET', account, 'bought')
  if has_paid and not bought then
    return {'lost'}
  elseif bought and not has_paid then -- as first versions left it
    redis.call('HSET', ledger, account, 1)
  end
end
local account_used = read(bought and redis.call('HGET', account, 'used'))
if bought then
  local left = add(add(read(bought), account_used, -1), sum_of(of_account[1], of_account[2]), -1)
  if is_less(left, usd) or is_less(left, {0, 0, 0}) then
    return {'account'}
  end
end
if not (is_limited or bought) then
  return {'later'}
end

if is_limited then
  hold(of_key[1], of_key[2], id, usd, until_then)
end
if bought then
  hold(of_account[1], of_account[2], id, usd, until_then)
end
return {'reserved', write(used), tostring(since), bought or '', write(account_used)}
