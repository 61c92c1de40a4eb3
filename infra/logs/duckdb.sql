-- Usage lines in DuckDB: `duckdb -init duckdb.sql -cmd "SET VARIABLE usage_files = 'usage/*.gz'"`.
-- Views; every event once, money as DECIMAL(38, 18).

CREATE OR REPLACE VIEW usage_lines AS
SELECT json AS line, json ->> '$.event' AS event
FROM read_ndjson_objects(getvariable('usage_files'))
WHERE json ->> '$.event' LIKE 'usage.%';

CREATE OR REPLACE VIEW finals AS
SELECT DISTINCT ON (line ->> '$.event_id')
    line ->> '$.event_id' AS event_id,
    line ->> '$.generation_id' AS generation_id,
    (line ->> '$.timestamp')::TIMESTAMPTZ AS at,
    substr(line ->> '$.timestamp', 1, 10) AS day,
    line ->> '$.api_key_id' AS api_key_id,
    line ->> '$.account_id' AS account_id,
    line ->> '$.model' AS model,
    line ->> '$.status' AS status,
    line ->> '$.billing_rule' AS billing_rule,
    (line ->> '$.billable')::BOOLEAN AS billable,
    (line ->> '$.prompt_tokens')::BIGINT AS prompt_tokens,
    (line ->> '$.completion_tokens')::BIGINT AS completion_tokens,
    (line ->> '$.ttft_ms')::DOUBLE AS ttft_ms,
    (line ->> '$.latency_ms')::DOUBLE AS latency_ms,
    (line ->> '$.cost')::DECIMAL(38, 18) AS cost,
    (line ->> '$.list_cost')::DECIMAL(38, 18) AS list_cost,
    line ->> '$.boot_id' AS boot_id,
    (line ->> '$.seq')::BIGINT AS seq
FROM usage_lines WHERE event = 'usage.final';

CREATE OR REPLACE VIEW adjustments AS
SELECT DISTINCT ON (line ->> '$.event_id')
    line ->> '$.event_id' AS event_id,
    line ->> '$.refers_to' AS refers_to,
    line ->> '$.boot_id' AS boot_id,
    (line ->> '$.seq')::BIGINT AS seq,
    (line ->> '$.cost_delta')::DECIMAL(38, 18) AS cost_delta
FROM usage_lines WHERE event = 'usage.adjustment';

-- What each key owes, by day and model, adjustments on the day of the bill that they correct.
CREATE OR REPLACE VIEW spending AS
SELECT day, api_key_id, model, count(*) AS requests,
    sum(prompt_tokens) FILTER (WHERE billable) AS prompt_tokens,
    sum(completion_tokens) FILTER (WHERE billable) AS completion_tokens,
    sum(cost + coalesce(cost_delta, 0)) AS cost
FROM finals LEFT JOIN (
    SELECT refers_to, sum(cost_delta) AS cost_delta FROM adjustments GROUP BY refers_to
) AS corrections ON corrections.refers_to = finals.event_id
GROUP BY ALL ORDER BY ALL;

-- One id with two contents: somebody must look at it.
CREATE OR REPLACE VIEW conflicts AS
SELECT line ->> '$.event_id' AS event_id, count(DISTINCT line ->> '$.content_sha256') AS contents
FROM usage_lines WHERE line ->> '$.event_id' IS NOT NULL
GROUP BY ALL HAVING contents > 1;

-- Boots of which a line is missing.
CREATE OR REPLACE VIEW gaps AS
SELECT boot_id, max(seq) - count(*) AS missing
FROM (SELECT boot_id, seq FROM finals UNION SELECT boot_id, seq FROM adjustments)
GROUP BY boot_id HAVING missing > 0;

CREATE OR REPLACE VIEW latencies AS
SELECT model, count(*) AS requests,
    quantile_cont(ttft_ms, 0.5) AS ttft_p50_ms, quantile_cont(ttft_ms, 0.95) AS ttft_p95_ms,
    quantile_cont(latency_ms, 0.95) AS latency_p95_ms
FROM finals WHERE status = 'ok' GROUP BY model ORDER BY model;
