-- Credits an account, once for each payment.
--
-- KEYS: all payments, the account, what requests hold of it, when that lapses, its credits, and
--   the ledger, which has every account that has ever paid.
-- ARGV: id of the payment, USD, and the credit in JSON.
-- Returns what `balance` does; `conflict` if the id is that of another amount or account.
local payments, account, held, lapses, credits, ledger = unpack(KEYS)

local payment = ARGV[2] .. ' ' .. account
local known = redis.call('HGET', payments, ARGV[1])
if known and known ~= payment and known ~= account then -- first versions noted the account only
  return {'conflict'}
end
if not known then
  redis.call('HSET', payments, ARGV[1], payment)
  redis.call('HSET', ledger, account, 1)
  local bought = read(redis.call('HGET', account, 'bought'))
  redis.call('HSET', account, 'bought', write(add(bought, read(ARGV[2]), 1)))
  redis.call('HSETNX', account, 'used', write({0, 0, 0}))
  redis.call('LPUSH', credits, string.format('%.0f ', now) .. ARGV[3])
end
return balance(account, held, lapses)
