-- Notes how far files of journals were read, and forgets those that are long gone.
--
-- KEYS: sizes by name, and names by when they were noted. ARGV: seconds to keep one, then name and
--   size of each.
local now = tonumber(redis.call('TIME')[1])

for i = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  redis.call('ZADD', KEYS[2], now, ARGV[i])
end
for _, name in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now - tonumber(ARGV[1]))) do
  redis.call('HDEL', KEYS[1], name)
  redis.call('ZREM', KEYS[2], name)
end
