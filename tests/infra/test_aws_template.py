"""`template.yaml`: linted, translated as SAM does it, read by its rules, and created in moto."""

import gzip
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import orjson
import pytest
from moto import mock_aws
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse

from provider_core.billing.audit.books import Books
from provider_core.billing.audit.sources import read_lines
from provider_core.billing.audit.totals import totals
from provider_core.billing.schema import PATH as SCHEMA
from provider_core.cli import BUILT_IN
from provider_core.settings import load_settings
from tests.unit.billing.journals import Log, QuickDisk, boot

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "template.yaml"
GPU_TEMPLATE = ROOT / "infra/aws/lambda-gpu.yaml"
PARAMETERS = {
    "ImageUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/provider:1",
    "InstanceType": "ml.g4dn.xlarge",  # of those that moto knows
    "AlarmEmail": "operator@example.com",
}
TARGETS = ["none", "sagemaker"]


class _NoManagedPolicies:
    """What SAM asks for the names of managed policies; the template uses none."""

    def load(self) -> dict[str, str]:
        return {}


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture(scope="module")
def translation() -> str:
    """The template as CloudFormation gets it."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        parsed = yaml_parse(TEMPLATE.read_text())
        return json.dumps(transform(parsed, dict(PARAMETERS), _NoManagedPolicies()))


@pytest.fixture
def translated(translation: str) -> dict[str, Any]:
    """A copy of it."""
    document: dict[str, Any] = json.loads(translation)
    return document


def of_type(document: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    """The properties of all resources of a type, by name."""
    return {
        name: resource["Properties"]
        for name, resource in document["Resources"].items()
        if resource["Type"] == kind
    }


def lint(path: Path) -> str:
    """What cfn-lint finds."""
    command = [str(Path(sys.executable).with_name("cfn-lint")), str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("path", [TEMPLATE, GPU_TEMPLATE], ids=lambda path: path.name)
def test_the_linter_finds_nothing(path: Path) -> None:
    """Neither errors nor warnings."""
    assert lint(path) == ""


def test_the_linter_still_does_not_know_accelerators(tmp_path: Path) -> None:
    """When it does, the exception of this one template goes."""
    path = tmp_path / "template.yaml"
    path.write_text(GPU_TEMPLATE.read_text().replace("[E3002]", "[]"))
    assert "AcceleratorConfig" in lint(path)


def test_cloudformation_can_read_it() -> None:
    """It knows no aliases of YAML."""
    assert not re.search(r"[:\[,-] *[&*][a-z]", TEMPLATE.read_text())


def test_the_image_starts_the_server_of_its_platform(translated: dict[str, Any]) -> None:
    """By the command that SageMaker passes, too."""
    (function,) = of_type(translated, "AWS::Lambda::Function").values()
    assert function["ImageConfig"]["Command"] == ["serve"]
    assert "serve" in BUILT_IN
    (model,) = of_type(translated, "AWS::SageMaker::Model").values()
    environments = (function["Environment"]["Variables"], model["PrimaryContainer"]["Environment"])
    assert [each["PROVIDER_PLATFORM"] for each in environments] == ["lambda", "sagemaker"]
    gpu_function = yaml_parse(GPU_TEMPLATE.read_text())["Resources"]["Function"]["Properties"]
    for variables in (environments[0], gpu_function["Environment"]["Variables"]):  # no volume there
        assert Path(variables["PROVIDER_DATA_DIR"]) == load_settings(platform="lambda").data_dir
    (url,) = of_type(translated, "AWS::Lambda::Url").values()
    assert url["InvokeMode"] == "RESPONSE_STREAM"


def test_whoever_has_the_key_may_call_an_open_url(translated: dict[str, Any]) -> None:
    """AWS asks for both permissions; SAM writes neither where the kind of URL is a parameter."""
    permissions = of_type(translated, "AWS::Lambda::Permission").values()
    actions = {each["Action"]: each for each in permissions}
    assert actions["lambda:InvokeFunctionUrl"]["FunctionUrlAuthType"] == "NONE"
    assert actions["lambda:InvokeFunction"]["InvokedViaFunctionUrl"] is True
    for resource in translated["Resources"].values():
        if resource["Type"] == "AWS::Lambda::Permission":
            assert resource["Condition"] == "IsOpen"


def test_a_gpu_that_is_paid_for_is_used(translated: dict[str, Any]) -> None:
    """By the image, by the driver beside it, and by the server, whose default are processors."""
    (model,) = of_type(translated, "AWS::SageMaker::Model").values()
    (config,) = of_type(translated, "AWS::SageMaker::EndpointConfig").values()
    gpu_function = yaml_parse(GPU_TEMPLATE.read_text())["Resources"]["Function"]["Properties"]
    for variables in (
        model["PrimaryContainer"]["Environment"],
        gpu_function["Environment"]["Variables"],
    ):
        assert variables["PROVIDER_ONNXRUNTIME_PROVIDER"] == "cuda"
    assert "gpu-4-1" in config["ProductionVariants"][0]["InferenceAmiVersion"]  # CUDA 13
    for page in ("sagemaker.md", "runpod.md"):
        assert (
            '"PROVIDER_ONNXRUNTIME_PROVIDER": "cuda"' in (ROOT / "docs/deploy" / page).read_text()
        )


def test_alarms_may_be_sent(translated: dict[str, Any]) -> None:
    """CloudWatch may not use AWS' own key of SNS."""
    (topic,) = (
        each for each in translated["Resources"].values() if each["Type"] == "AWS::SNS::Topic"
    )
    assert "KmsMasterKeyId" not in topic.get("Properties", {})


def test_secrets_are_named_and_never_held(translated: dict[str, Any]) -> None:
    """Whoever may read the configuration may not read the keys."""
    (function,) = of_type(translated, "AWS::Lambda::Function").values()
    (model,) = of_type(translated, "AWS::SageMaker::Model").values()
    for variables in (
        function["Environment"]["Variables"],
        model["PrimaryContainer"]["Environment"],
    ):
        for name in ("PROVIDER_API_KEY", "PROVIDER_ACCESS__PEPPER"):
            assert variables[name]["Fn::Sub"].startswith("aws-sm://${")
    for secret in of_type(translated, "AWS::SecretsManager::Secret").values():
        assert "SecretString" not in secret


def test_roles_may_do_no_more_than_they_need(translated: dict[str, Any]) -> None:
    """No wildcards in actions; one action that knows no resources has one there."""
    policies = [
        policy["PolicyDocument"]
        for role in of_type(translated, "AWS::IAM::Role").values()
        for policy in role["Policies"]
    ]
    policies += [
        each["PolicyDocument"] for each in of_type(translated, "AWS::IAM::Policy").values()
    ]
    statements = [statement for policy in policies for statement in policy["Statement"]]
    assert len(statements) > 8
    for statement in statements:
        actions = statement["Action"]
        assert "*" not in json.dumps(actions)
        if statement["Resource"] == "*":
            assert actions == "ecr:GetAuthorizationToken"
    for role in of_type(translated, "AWS::IAM::Role").values():
        assert "ManagedPolicyArns" not in role


def test_logs_and_usage_end_some_day_and_nothing_is_public(translated: dict[str, Any]) -> None:
    """Every log group has a retention, every bucket is encrypted and closed."""
    assert all(
        group["RetentionInDays"] == {"Ref": "LogRetentionDays"}
        for group in of_type(translated, "AWS::Logs::LogGroup").values()
    )
    for bucket in of_type(translated, "AWS::S3::Bucket").values():
        assert all(bucket["PublicAccessBlockConfiguration"].values())
        assert bucket["BucketEncryption"]
    usage = of_type(translated, "AWS::S3::Bucket")["UsageBucket"]
    rules = usage["LifecycleConfiguration"]["Rules"]
    assert {"Ref": "UsageRetentionDays"} in [rule["ExpirationInDays"] for rule in rules]
    # Of a bucket with versions, what expires becomes an old version.
    assert all(rule["NoncurrentVersionExpiration"]["NoncurrentDays"] <= 30 for rule in rules)


def test_the_subscription_takes_the_events_of_the_log_schema(translated: dict[str, Any]) -> None:
    """All usage events by their names, and nothing else."""
    (subscription,) = of_type(translated, "AWS::Logs::SubscriptionFilter").values()
    other = yaml_parse(GPU_TEMPLATE.read_text())["Resources"]["UsageSubscription"]["Properties"]
    assert other["FilterPattern"] == subscription["FilterPattern"]
    schema = orjson.loads(SCHEMA.read_bytes())
    names = set(re.findall(r'"(usage\.\w+)"', json.dumps(schema)))
    assert len(names) == 4
    assert set(re.findall(r'\(\$\.event = "([\w.]+)"\)', subscription["FilterPattern"])) == names


def test_metrics_are_of_lines_that_the_schema_page_names(translated: dict[str, Any]) -> None:
    """An event or a field that is renamed takes its alarm along."""
    page = (ROOT / "docs/log-schema.md").read_text()
    filters = of_type(translated, "AWS::Logs::MetricFilter").values()
    patterns = " ".join(each["FilterPattern"] for each in filters)
    events = re.findall(r'\$\.event = "([\w.]+)"', patterns)
    fields = set(re.findall(r"\$\.(\w+)", patterns)) - {"event"}
    assert len(events) > 3
    assert all(f"`{event}`" in page or f"## {event}" in page for event in events)
    assert all(f"| `{field}` |" in page for field in fields)


def test_queries_and_the_table_are_those_of_infra_logs(translated: dict[str, Any]) -> None:
    """So that what is tested there is what is deployed."""

    def words(text: str) -> str:
        return " ".join(text.split())

    athena = words((ROOT / "infra/logs/athena.sql").read_text())
    insights = words((ROOT / "infra/logs/logs-insights.txt").read_text())
    (invoices,) = of_type(translated, "AWS::Athena::NamedQuery").values()
    assert words(invoices["QueryString"]) in athena
    queries = of_type(translated, "AWS::Logs::QueryDefinition")
    for name in ("LatenciesQuery", "TokensQuery"):
        assert words(queries[name]["QueryString"]) in insights
    (table,) = of_type(translated, "AWS::Glue::Table").values()
    for key, value in table["TableInput"]["Parameters"].items():
        if key.startswith("projection"):
            assert f"'{key}' = '{value}'" in athena


@pytest.mark.filterwarnings("ignore:Tried to parse", "ignore:No Moto")
@pytest.mark.parametrize("target", TARGETS)
def test_the_stack_is_created(translated: dict[str, Any], target: str) -> None:
    """As far as moto knows its resources; an output of one that it does not know is left out."""
    outputs = translated["Outputs"]
    translated["Outputs"] = {k: v for k, v in outputs.items() if "Fn::GetAtt" not in v["Value"]}
    parameters = {**PARAMETERS, "GpuTarget": target}
    with mock_aws():
        cloudformation = boto3.client("cloudformation")
        cloudformation.create_stack(
            StackName="provider",
            TemplateBody=json.dumps(translated),
            Parameters=[
                {"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()
            ],
            Capabilities=["CAPABILITY_IAM"],
        )
        (stack,) = cloudformation.describe_stacks(StackName="provider")["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE"
        groups = boto3.client("logs").describe_log_groups()["logGroups"]
        assert [group["retentionInDays"] for group in groups] == [90]
        endpoints = boto3.client("sagemaker").list_endpoints()["Endpoints"]
        assert len(endpoints) == TARGETS.index(target)


def messages(bucket: str) -> Iterator[bytes]:
    """The lines in a bucket, out of CloudWatch's envelopes as Firehose's processors take them."""
    s3 = boto3.client("s3")
    for item in s3.list_objects_v2(Bucket=bucket)["Contents"]:
        assert item["Key"].startswith("usage/day=")  # moto writes no dates there
        body = s3.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
        envelopes = gzip.decompress(body)
        for envelope in envelopes.splitlines():
            for event in json.loads(envelope)["logEvents"]:
                yield event["message"].encode()


def test_a_line_of_the_log_arrives_and_is_counted(
    translated: dict[str, Any], tmp_path: Path
) -> None:
    """From CloudWatch over Firehose to S3, and what is there adds up to what was written."""
    written = Log()
    with boot(tmp_path / "journal", written, disk=QuickDisk()) as started:
        started.serve(5)
    (stream,) = of_type(translated, "AWS::KinesisFirehose::DeliveryStream").values()
    (subscription,) = of_type(translated, "AWS::Logs::SubscriptionFilter").values()
    destination = stream["ExtendedS3DestinationConfiguration"]
    with mock_aws():
        logs, s3, firehose = map(boto3.client, ("logs", "s3", "firehose"))
        s3.create_bucket(Bucket="usage")
        created = firehose.create_delivery_stream(
            DeliveryStreamName="usage",
            ExtendedS3DestinationConfiguration={
                "BucketARN": "arn:aws:s3:::usage",
                "RoleARN": "arn:aws:iam::123456789012:role/usage",
                "Prefix": destination["Prefix"],
                "CompressionFormat": destination["CompressionFormat"],
            },
        )
        logs.create_log_group(logGroupName="provider")
        logs.create_log_stream(logGroupName="provider", logStreamName="one")
        logs.put_subscription_filter(
            logGroupName="provider",
            filterName="usage",
            filterPattern=subscription["FilterPattern"],
            destinationArn=created["DeliveryStreamARN"],
            roleArn="arn:aws:iam::123456789012:role/usage",
        )
        now_ms = int(time.time() * 1000)
        logs.put_log_events(
            logGroupName="provider",
            logStreamName="one",
            logEvents=[
                {"timestamp": now_ms + i, "message": line.decode().strip()}
                for i, line in enumerate(written.lines)
            ],
        )
        arrived = list(messages("usage"))
    with Books() as expected, Books() as books:
        expected.read("log", read_lines(written.lines, "log"))
        books.read("log", read_lines([line + b"\n" for line in arrived], "log"))
        assert totals(books) == totals(expected) != []
