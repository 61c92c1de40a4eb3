// Runs one conversation with Anthropic's or Google's published client and prints what its user
// would see: a line for each way to ask, one JSON object each.
//
// Standard input is {client, url, key, version, tool}; `tool` is a function as OpenAI writes it.
import Anthropic from "@anthropic-ai/sdk";
import { GoogleGenAI } from "@google/genai";

const input = JSON.parse(await new Response(process.stdin).text());
const model = "openai/gpt-test";
const text = "what do you see?";

function show(seen) {
  console.log(JSON.stringify(seen));
}

async function anthropic() {
  const client = new Anthropic({ baseURL: input.url, apiKey: input.key, maxRetries: 0 });
  const { name, description, parameters } = input.tool;
  const messages = [{ role: "user", content: text }];
  const tools = [{ name, description, input_schema: parameters }];
  const request = { model, max_tokens: 200, messages, tools };
  const whole = await client.messages.create(request);
  const streamed = await client.messages.stream(request).finalMessage();
  for (const { content, stop_reason, usage } of [whole, streamed]) {
    show({
      thinking: content.find(({ type }) => type === "thinking")?.thinking,
      text: content.find(({ type }) => type === "text")?.text,
      calls: content.filter(({ type }) => type === "tool_use").map((call) => [call.name, call.input]),
      reason: stop_reason,
      tokens: [usage.input_tokens, usage.output_tokens],
    });
  }
  const { input_tokens } = await client.messages.countTokens({ model, messages, tools });
  const models = [];
  for await (const { id } of client.models.list()) models.push(id);
  const error = await client.messages.create({ ...request, model: "nobody" }).catch((e) => e);
  show({ counted: input_tokens, models, error: [error.constructor.name, error.status] });
}

async function google() {
  const httpOptions = { baseUrl: input.url, apiVersion: input.version };
  const client = new GoogleGenAI({ apiKey: input.key, httpOptions });
  const { name, description, parameters } = input.tool;
  const declaration = { name, description, parametersJsonSchema: parameters };
  const config = {
    tools: [{ functionDeclarations: [declaration] }],
    thinkingConfig: { includeThoughts: true },
  };
  const request = { model, contents: text, config };
  const whole = [await client.models.generateContent(request)];
  const streamed = [];
  for await (const piece of await client.models.generateContentStream(request)) {
    streamed.push(piece);
  }
  for (const pieces of [whole, streamed]) {
    const parts = pieces.flatMap((piece) => piece.candidates[0].content.parts);
    const join = (thought) =>
      parts
        .filter((part) => part.text !== undefined && (part.thought ?? false) === thought)
        .map((part) => part.text)
        .join("");
    const { candidates, usageMetadata: usage } = pieces.at(-1);
    show({
      thinking: join(true),
      text: join(false),
      calls: parts.filter((p) => p.functionCall).map((p) => [p.functionCall.name, p.functionCall.args]),
      reason: candidates[0].finishReason,
      tokens: [usage.promptTokenCount, usage.candidatesTokenCount + usage.thoughtsTokenCount],
    });
  }
  const { totalTokens } = await client.models.countTokens({ model, contents: text });
  const models = [];
  for await (const item of await client.models.list()) models.push(item.name);
  const error = await client.models.generateContent({ ...request, model: "nobody" }).catch((e) => e);
  show({ counted: totalTokens, models, error: [error.constructor.name, error.status] });
}

await { anthropic, google }[input.client]();
