// Runs a conversation with one published client and prints what its user would see, one JSON line
// for each case; see ../test_clients.py. Standard input is {client, url, seeing_url, key}.
import Anthropic from "@anthropic-ai/sdk";
import { GoogleGenAI } from "@google/genai";
import { createOpenRouter } from "@openrouter/ai-sdk-provider";
import { OpenRouter } from "@openrouter/sdk";
import { generateText, jsonSchema, Output, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";

const MODEL = "test-model";
const HELLO = "Say hello.";
const ASK = "What is the weather in Rome?";
const DESCRIBE = "Describe the weather.";
const COUNT = "Count for a long time.";
const TOO_LONG = "word ".repeat(1000);
const RESULT = { sky: "blue" };
const PICTURE =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const SCHEMA = {
  type: "object",
  properties: { city: { type: "string" }, days: { type: "integer" } },
  required: ["city", "days"],
  additionalProperties: false,
};
const WEATHER = { name: "Weather", description: "The weather.", parameters: SCHEMA };
const FUNCTION = { type: "function", function: WEATHER };

const said = (content) => [{ role: "user", content }];
const shown = (text, input, output) => ({ text, usage: [input, output] });

function openai(url, key) {
  const make = (apiKey) => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 });
  const { completions } = make(key).chat;
  const create = (messages, fields = {}) => completions.create({ model: MODEL, messages, ...fields });
  const calls = ({ choices: [{ message }] }) =>
    message.tool_calls.map(({ function: { name, arguments: text } }) => [name, JSON.parse(text)]);
  const seen = ({ choices: [{ message }], usage }) =>
    shown(message.content, usage.prompt_tokens, usage.completion_tokens);
  const stream = (messages, fields = {}) =>
    completions.stream({ model: MODEL, messages, ...fields }).finalChatCompletion();
  const tools = [FUNCTION];
  const image = { type: "image_url", image_url: { url: `data:image/png;base64,${PICTURE}` } };
  return {
    whole: async () => seen(await create(said(HELLO))),
    streamed: async () =>
      seen(await stream(said(HELLO), { stream_options: { include_usage: true } })),
    called: async () => calls(await create(said(ASK), { tools })),
    forced: async () =>
      calls(await create(said(ASK), { tools, tool_choice: { type: "function", function: { name: "Weather" } } })),
    "called in a stream": async () => calls(await stream(said(ASK), { tools })),
    told: async () => {
      const weather = { ...WEATHER, function: async () => JSON.stringify(RESULT), parse: JSON.parse };
      const runner = completions.runTools({
        model: MODEL,
        messages: said(ASK),
        tools: [{ type: "function", function: weather }],
      });
      return await runner.finalContent();
    },
    document: async () => {
      const json_schema = { name: "weather", schema: SCHEMA, strict: true };
      const form = { response_format: { type: "json_schema", json_schema } };
      return JSON.parse((await create(said(DESCRIBE), form)).choices[0].message.content);
    },
    "wrong key": () =>
      make("sk-wrong-key").chat.completions.create({ model: MODEL, messages: said(HELLO) }),
    "unknown model": () => create(said(HELLO), { model: "nobody" }),
    picture: async () =>
      (await create(said([{ type: "text", text: HELLO }, image]))).choices[0].message.content,
    "too long": () => create(said(TOO_LONG)),
    left: async () => {
      for await (const { choices } of await create(said(COUNT), { stream: true })) {
        if (choices[0].delta.content) return choices[0].delta.content;
      }
    },
  };
}

function openrouter(url, key) {
  const make = (apiKey) => new OpenRouter({ apiKey, serverURL: `${url}/api/v1` });
  const client = make(key);
  const send = (messages, fields = {}, by = client) =>
    by.chat.send({ chatRequest: { model: MODEL, messages, ...fields } });
  const calls = (found) => found.map(({ name, text }) => [name, JSON.parse(text)]);
  const read = async (stream) => {
    const whole = { text: "", calls: [], usage: null };
    for await (const { choices, usage } of await stream) {
      whole.usage = usage ?? whole.usage;
      for (const { delta } of choices) {
        whole.text += delta.content ?? "";
        for (const { index, function: call } of delta.toolCalls ?? []) {
          whole.calls[index] ??= { name: "", text: "" };
          whole.calls[index].name += call?.name ?? "";
          whole.calls[index].text += call?.arguments ?? "";
        }
      }
    }
    return whole;
  };
  const called = ({ choices: [{ message }] }) =>
    calls(message.toolCalls.map(({ function: { name, arguments: text } }) => ({ name, text })));
  const tools = [FUNCTION];
  const image = { type: "image_url", imageUrl: { url: `data:image/png;base64,${PICTURE}` } };
  return {
    whole: async () => {
      const { choices, usage } = await send(said(HELLO));
      return shown(choices[0].message.content, usage.promptTokens, usage.completionTokens);
    },
    streamed: async () => {
      const { text, usage } = await read(send(said(HELLO), { stream: true }));
      return shown(text, usage.promptTokens, usage.completionTokens);
    },
    called: async () => called(await send(said(ASK), { tools })),
    forced: async () =>
      called(await send(said(ASK), { tools, toolChoice: { type: "function", function: { name: "Weather" } } })),
    "called in a stream": async () =>
      calls((await read(send(said(ASK), { tools, stream: true }))).calls),
    told: async () => {
      const { message } = (await send(said(ASK), { tools })).choices[0];
      const result = {
        role: "tool",
        toolCallId: message.toolCalls[0].id,
        content: JSON.stringify(RESULT),
      };
      const reply = await send([...said(ASK), message, result], { tools });
      return reply.choices[0].message.content;
    },
    document: async () => {
      const jsonSchema = { name: "weather", schema: SCHEMA, strict: true };
      const form = { responseFormat: { type: "json_schema", jsonSchema } };
      return JSON.parse((await send(said(DESCRIBE), form)).choices[0].message.content);
    },
    "wrong key": () => send(said(HELLO), {}, make("sk-wrong-key")),
    "unknown model": () => send(said(HELLO), { model: "nobody" }),
    picture: async () =>
      (await send(said([{ type: "text", text: HELLO }, image]))).choices[0].message.content,
    "too long": () => send(said(TOO_LONG)),
    left: async () => {
      for await (const { choices } of await send(said(COUNT), { stream: true })) {
        if (choices[0]?.delta.content) return choices[0].delta.content;
      }
    },
  };
}

function vercel(url, key) {
  const make = (apiKey) => createOpenRouter({ apiKey, baseURL: `${url}/api/v1` });
  const options = (fields) => ({ model: make(key).chat(MODEL), maxRetries: 0, ...fields });
  const ask = (prompt, fields = {}) => generateText(options({ prompt, ...fields }));
  const inputSchema = jsonSchema(SCHEMA);
  const tools = { Weather: tool({ description: "The weather.", inputSchema }) };
  const calls = (found) => found.map(({ toolName, input }) => [toolName, input]);
  const seen = (text, usage) => shown(text, usage.inputTokens, usage.outputTokens);
  return {
    whole: async () => {
      const { text, usage } = await ask(HELLO);
      return seen(text, usage);
    },
    streamed: async () => {
      const result = streamText(options({ prompt: HELLO }));
      return seen(await result.text, await result.usage);
    },
    called: async () => calls((await ask(ASK, { tools })).toolCalls),
    forced: async () =>
      calls((await ask(ASK, { tools, toolChoice: { type: "tool", toolName: "Weather" } })).toolCalls),
    "called in a stream": async () =>
      calls(await streamText(options({ prompt: ASK, tools })).toolCalls),
    told: async () => {
      const answering = { Weather: tool({ inputSchema, execute: async () => RESULT }) };
      return (await ask(ASK, { tools: answering, stopWhen: stepCountIs(2) })).text;
    },
    document: async () => {
      const output = Output.object({ schema: inputSchema });
      return (await ask(DESCRIBE, { output })).output;
    },
    "wrong key": () => ask(HELLO, { model: make("sk-wrong-key").chat(MODEL) }),
    "unknown model": () => ask(HELLO, { model: make(key).chat("nobody") }),
    picture: async () => {
      const content = [
        { type: "text", text: HELLO },
        { type: "image", image: PICTURE, mediaType: "image/png" },
      ];
      return (await generateText(options({ messages: said(content) }))).text;
    },
    "too long": () => ask(TOO_LONG),
    left: async () => {
      const controller = new AbortController();
      const { textStream } = streamText(options({ prompt: COUNT, abortSignal: controller.signal }));
      for await (const text of textStream) {
        controller.abort();
        return text;
      }
    },
  };
}

function anthropic(url, key) {
  const make = (apiKey) => new Anthropic({ baseURL: url, apiKey, maxRetries: 0 });
  const { messages } = make(key);
  const body = (content, fields = {}) => ({ model: MODEL, max_tokens: 1000, messages: said(content), ...fields });
  const create = (content, fields) => messages.create(body(content, fields));
  const stream = (content, fields) => messages.stream(body(content, fields)).finalMessage();
  const text = ({ content }) => content.find(({ type }) => type === "text").text;
  const seen = (message) =>
    shown(text(message), message.usage.input_tokens, message.usage.output_tokens);
  const uses = ({ content }) => content.filter(({ type }) => type === "tool_use");
  const calls = (message) => uses(message).map(({ name, input }) => [name, input]);
  const tools = [{ name: "Weather", description: "The weather.", input_schema: SCHEMA }];
  const image = { type: "image", source: { type: "base64", media_type: "image/png", data: PICTURE } };
  return {
    whole: async () => seen(await create(HELLO)),
    streamed: async () => seen(await stream(HELLO)),
    called: async () => calls(await create(ASK, { tools })),
    forced: async () =>
      calls(await create(ASK, { tools, tool_choice: { type: "tool", name: "Weather" } })),
    "called in a stream": async () => calls(await stream(ASK, { tools })),
    told: async () => {
      const first = await create(ASK, { tools });
      const content = uses(first).map(({ id }) => ({
        type: "tool_result",
        tool_use_id: id,
        content: JSON.stringify(RESULT),
      }));
      const turns = [
        ...said(ASK),
        { role: "assistant", content: first.content },
        { role: "user", content },
      ];
      return text(await create(ASK, { tools, messages: turns }));
    },
    document: async () => {
      const output_config = { format: { type: "json_schema", schema: SCHEMA } };
      return JSON.parse(text(await create(DESCRIBE, { output_config })));
    },
    "wrong key": () => make("sk-wrong-key").messages.create(body(HELLO)),
    "unknown model": () => create(HELLO, { model: "nobody" }),
    picture: async () => text(await create([{ type: "text", text: HELLO }, image])),
    "too long": () => create(TOO_LONG),
    left: async () => {
      for await (const event of await create(COUNT, { stream: true })) {
        if (event.type === "content_block_delta") return event.delta.text;
      }
    },
  };
}

function google(url, key) {
  const make = (apiKey) => new GoogleGenAI({ apiKey, httpOptions: { baseUrl: url } });
  const { models } = make(key);
  const ask = (contents, config = {}, model = MODEL) =>
    models.generateContent({ model, contents, config });
  const stream = (contents, config = {}) =>
    models.generateContentStream({ model: MODEL, contents, config });
  const read = async (contents, config) => {
    const pieces = [];
    for await (const piece of await stream(contents, config)) pieces.push(piece);
    return pieces;
  };
  const counted = (text, { promptTokenCount, candidatesTokenCount }) =>
    shown(text, promptTokenCount, candidatesTokenCount);
  const calls = (pieces) =>
    pieces.flatMap(({ functionCalls }) => functionCalls ?? []).map(({ name, args }) => [name, args]);
  const { name, description } = WEATHER;
  const tools = [{ functionDeclarations: [{ name, description, parametersJsonSchema: SCHEMA }] }];
  const toolConfig = { functionCallingConfig: { mode: "ANY", allowedFunctionNames: [name] } };
  return {
    whole: async () => {
      const reply = await ask(HELLO);
      return counted(reply.text, reply.usageMetadata);
    },
    streamed: async () => {
      const pieces = await read(HELLO);
      const text = pieces.map((piece) => piece.text ?? "").join("");
      return counted(text, pieces.at(-1).usageMetadata);
    },
    called: async () => calls([await ask(ASK, { tools })]),
    forced: async () => calls([await ask(ASK, { tools, toolConfig })]),
    "called in a stream": async () => calls(await read(ASK, { tools })),
    told: async () => {
      const first = await ask(ASK, { tools });
      const functionResponse = { name, response: RESULT, id: first.functionCalls[0].id };
      const turns = [
        { role: "user", parts: [{ text: ASK }] },
        first.candidates[0].content,
        { role: "user", parts: [{ functionResponse }] },
      ];
      return (await ask(turns, { tools })).text;
    },
    document: async () => {
      const form = { responseMimeType: "application/json", responseJsonSchema: SCHEMA };
      return JSON.parse((await ask(DESCRIBE, form)).text);
    },
    "wrong key": () => make("sk-wrong-key").models.generateContent({ model: MODEL, contents: HELLO }),
    "unknown model": () => ask(HELLO, {}, "nobody"),
    picture: async () =>
      (await ask([{ text: HELLO }, { inlineData: { mimeType: "image/png", data: PICTURE } }])).text,
    "too long": () => ask(TOO_LONG),
    left: async () => {
      const controller = new AbortController();
      for await (const { text } of await stream(COUNT, { abortSignal: controller.signal })) {
        controller.abort();
        return text;
      }
    },
  };
}

const input = JSON.parse(await new Response(process.stdin).text());
const clients = { openai, openrouter, vercel, anthropic, google };
const make = clients[input.client];
const cases = make(input.url, input.key);
cases.seen = make(input.seeing_url, input.key).picture;
for (const [name, run] of Object.entries(cases)) {
  let line;
  try {
    line = { seen: await run() };
  } catch (error) {
    const status = error.status ?? error.statusCode ?? null;
    line = { error: error.constructor.name, status, message: String(error.message).slice(0, 500) };
  }
  console.log(JSON.stringify({ case: name, ...line }));
}
process.exit(0); // a connection that was left may still be closing
