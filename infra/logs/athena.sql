-- Usage lines in Athena, as vector.yaml and fluent-bit.yaml put them into S3.
-- Replace BUCKET. Money is decimal(38, 18); every event counts once.

CREATE EXTERNAL TABLE usage_lines (line string)
PARTITIONED BY (day string)
ROW FORMAT DELIMITED FIELDS TERMINATED BY '\001' LINES TERMINATED BY '\n'
LOCATION 's3://BUCKET/usage/'
TBLPROPERTIES (
    'projection.enabled' = 'true',
    'projection.day.type' = 'date',
    'projection.day.format' = 'yyyy-MM-dd',
    'projection.day.range' = '2026-01-01,NOW',
    'storage.location.template' = 's3://BUCKET/usage/day=${day}/'
);

CREATE OR REPLACE VIEW finals AS
SELECT
    json_extract_scalar(line, '$.event_id') AS event_id,
    arbitrary(substr(json_extract_scalar(line, '$.timestamp'), 1, 10)) AS bill_day,
    arbitrary(json_extract_scalar(line, '$.api_key_id')) AS api_key_id,
    arbitrary(json_extract_scalar(line, '$.model')) AS model,
    arbitrary(json_extract_scalar(line, '$.billable')) = 'true' AS billable,
    arbitrary(cast(json_extract_scalar(line, '$.prompt_tokens') AS bigint)) AS prompt_tokens,
    arbitrary(cast(json_extract_scalar(line, '$.completion_tokens') AS bigint)) AS completion_tokens,
    arbitrary(cast(json_extract_scalar(line, '$.cost') AS decimal(38, 18))) AS cost
FROM usage_lines
WHERE json_extract_scalar(line, '$.event') = 'usage.final'
GROUP BY json_extract_scalar(line, '$.event_id');

CREATE OR REPLACE VIEW adjustments AS
SELECT
    json_extract_scalar(line, '$.event_id') AS event_id,
    arbitrary(json_extract_scalar(line, '$.refers_to')) AS refers_to,
    arbitrary(cast(json_extract_scalar(line, '$.cost_delta') AS decimal(38, 18))) AS cost_delta
FROM usage_lines
WHERE json_extract_scalar(line, '$.event') = 'usage.adjustment'
GROUP BY json_extract_scalar(line, '$.event_id');

SELECT bill_day, api_key_id, model, count(*) AS requests,
    sum(cost + coalesce(cost_delta, decimal '0')) AS cost
FROM finals LEFT JOIN (
    SELECT refers_to, sum(cost_delta) AS cost_delta FROM adjustments GROUP BY refers_to
) AS corrections ON corrections.refers_to = finals.event_id
GROUP BY bill_day, api_key_id, model ORDER BY 1, 2, 3;
