-- Takes from every bucket and counts a request as running, or neither; or gives back.
--
-- KEYS: the buckets, then the concurrency limits, each a set of running requests by when they lapse.
-- ARGV: 1 to give back: then amounts are negative, nothing refuses, and the request is no longer
--   counted; number of buckets, request id, lease in microseconds; of each bucket the amount, what
--   it can hold, and its period in microseconds; of each concurrency limit how many may run.
-- Returns whether everything was there, what each bucket holds now, and how many others run.
local ROUNDING = 1e-9
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local is_back, num_buckets = ARGV[1] == '1', tonumber(ARGV[2])
local request, lease = ARGV[3], tonumber(ARGV[4])
local is_there = 1
local buckets, levels, running = {}, {}, {}

for i = 1, num_buckets do
  local amount = tonumber(ARGV[3 * i + 2])
  local capacity = tonumber(ARGV[3 * i + 3])
  local rate = capacity / tonumber(ARGV[3 * i + 4])
  local level = capacity
  local known = redis.call('HMGET', KEYS[i], 'level', 'at')
  if known[1] then
    local elapsed = math.max(now - tonumber(known[2]), 0)
    level = math.min(capacity, tonumber(known[1]) + elapsed * rate)
  end
  if not is_back and amount > 0 and math.min(amount, capacity) - level > ROUNDING then
    is_there = 0
  end
  buckets[i] = {amount = amount, capacity = capacity, rate = rate, level = level}
end

for i = num_buckets + 1, #KEYS do
  redis.call('ZREMRANGEBYSCORE', KEYS[i], '-inf', now)
  local others = redis.call('ZCARD', KEYS[i])
  if redis.call('ZSCORE', KEYS[i], request) then
    others = others - 1
  end
  if not is_back and others >= tonumber(ARGV[2 * num_buckets + 4 + i]) then
    is_there = 0
  end
  running[#running + 1] = others
end

for i, bucket in ipairs(buckets) do
  if is_there == 1 and bucket.amount ~= 0 then
    bucket.level = math.min(bucket.capacity, bucket.level - bucket.amount)
    redis.call('HSET', KEYS[i], 'level', string.format('%.17g', bucket.level),
      'at', string.format('%.0f', now))
    local until_full = (bucket.capacity - bucket.level) / bucket.rate
    redis.call('PEXPIRE', KEYS[i], math.ceil(until_full / 1000) + 1000) -- full, as if never used
  end
  levels[i] = string.format('%.17g', bucket.level)
end

for i = num_buckets + 1, #KEYS do
  if is_back then
    redis.call('ZREM', KEYS[i], request)
  elseif is_there == 1 then
    redis.call('ZADD', KEYS[i], string.format('%.0f', now + lease), request)
    redis.call('PEXPIRE', KEYS[i], math.ceil(lease / 1000))
  end
end

return {is_there, levels, running}
