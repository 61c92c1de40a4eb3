// Sends requests with a published client and prints what its user would see, one JSON line each.
//
// Standard input is {client, key, requests: [{url, body}, ...]}; a URL has no base path. A line is
// {seen: [...]}, one entry for each way to ask (whole, streamed), or {error}.
import { OpenRouter } from "@openrouter/sdk";
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { jsonSchema, streamText, tool } from "ai";
import OpenAI from "openai";

const input = JSON.parse(await new Response(process.stdin).text());

/** What one choice of a whole chat completion or of joined chunks says. */
function seen(text, reasoning, calls, reason) {
  return { text: text ?? "", reasoning: reasoning || null, calls, reason };
}

async function openai(url, body) {
  const client = new OpenAI({ baseURL: url + "/v1", apiKey: input.key, maxRetries: 0 });
  const whole = await client.chat.completions.create(body);
  const stream = client.chat.completions.stream({ ...body, stream: true });
  let reasoning = "";
  for await (const chunk of stream) {
    reasoning += chunk.choices[0]?.delta.reasoning ?? "";
  }
  const streamed = await stream.finalChatCompletion();
  return [whole, streamed].map(({ choices: [{ message, finish_reason }] }, place) =>
    seen(
      message.content,
      place === 0 ? message.reasoning : reasoning,
      (message.tool_calls ?? []).map(({ function: call }) => [call.name, call.arguments]),
      finish_reason,
    ),
  );
}

/** OpenRouter's package spells fields in camel case and drops those that it does not know. */
function camelCase(value) {
  if (Array.isArray(value)) return value.map(camelCase);
  if (value === null || typeof value !== "object") return value;
  const renamed = ([name, item]) => [
    name.replace(/_([a-z])/g, (_, letter) => letter.toUpperCase()),
    ["parameters", "schema"].includes(name) ? item : camelCase(item),
  ];
  return Object.fromEntries(Object.entries(value).map(renamed));
}

async function openrouter(url, body) {
  const client = new OpenRouter({ apiKey: input.key, serverURL: url + "/api/v1" });
  const request = camelCase(body);
  const whole = await client.chat.send({ chatRequest: { ...request, stream: false } });
  const stream = await client.chat.send({ chatRequest: { ...request, stream: true } });
  let text = "";
  let reasoning = "";
  let reason = null;
  const calls = [];
  for await (const chunk of stream) {
    for (const { delta, finishReason } of chunk.choices) {
      text += delta.content ?? "";
      reasoning += delta.reasoning ?? "";
      reason = finishReason ?? reason;
      for (const { index, function: call } of delta.toolCalls ?? []) {
        calls[index] ??= ["", ""];
        calls[index][0] += call?.name ?? "";
        calls[index][1] += call?.arguments ?? "";
      }
    }
  }
  const [{ message, finishReason }] = whole.choices;
  const wholeCalls = (message.toolCalls ?? []).map(({ function: call }) => [
    call.name,
    call.arguments,
  ]);
  return [
    seen(message.content, message.reasoning, wholeCalls, finishReason),
    seen(text, reasoning, calls, reason),
  ];
}

async function vercel(url, body) {
  const provider = createOpenRouter({ apiKey: input.key, baseURL: url + "/api/v1" });
  const tools = Object.fromEntries(
    (body.tools ?? []).map(({ function: { name, parameters } }) => [
      name,
      tool({ inputSchema: jsonSchema(parameters ?? { type: "object", properties: {} }) }),
    ]),
  );
  const { messages, model, ...fields } = body;
  delete fields.tools;
  const result = streamText({
    model: provider.chat(model, { extraBody: fields }),
    messages,
    tools,
    maxRetries: 0,
    onError: ({ error }) => {
      throw error;
    },
  });
  let text = "";
  let reasoning = "";
  let reason = null;
  const calls = [];
  for await (const part of result.fullStream) {
    if (part.type === "text-delta") text += part.text;
    if (part.type === "reasoning-delta") reasoning += part.text;
    if (part.type === "tool-call") calls.push([part.toolName, JSON.stringify(part.input)]);
    if (part.type === "error") throw part.error;
    if (part.type === "finish") reason = part.finishReason.replace("-", "_");
  }
  return [seen(text, reasoning, calls, reason)];
}

const clients = { openai, openrouter, vercel };
for (const { url, body } of input.requests) {
  let line;
  try {
    line = { seen: await clients[input.client](url, body) };
  } catch (error) {
    line = { error: `${error?.name}: ${error?.message}`.slice(0, 2000) };
  }
  console.log(JSON.stringify(line));
}
