-- Credits an account, once for each payment.
--
-- KEYS: all payments, the account, what requests hold of it, when that lapses, and its credits.
-- ARGV: id of the payment, USD, and the credit in JSON.
-- Returns what `balance` does.
local payments, account, held, lapses, credits = unpack(KEYS)

if redis.call('HSETNX', payments, ARGV[1], account) == 1 then
  local bought = read(redis.call('HGET', account, 'bought'))
  redis.call('HSET', account, 'bought', write(add(bought, read(ARGV[2]), 1)))
  redis.call('HSETNX', account, 'used', write({0, 0, 0}))
  redis.call('LPUSH', credits, string.format('%.0f ', now) .. ARGV[3])
end
return balance(account, held, lapses)
