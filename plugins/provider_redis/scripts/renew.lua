-- Lets running requests be counted for another lease; not those that have ended meanwhile.
--
-- KEYS: of each request, the set of a concurrency limit. ARGV: lease in microseconds, then the ids
--   of the requests.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local lease = tonumber(ARGV[1])

for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, 'XX', string.format('%.0f', now + lease), ARGV[i + 1])
  redis.call('PEXPIRE', key, math.ceil(lease / 1000))
end
