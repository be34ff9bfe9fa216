// OpenAI's client: whole and streamed answers, forms, tools that it runs itself, Responses, errors.
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0, timeout: 20_000 });
const messages = [{ role: "user", content: "Hello" }];
const told = {};

const { data, response } = await client.chat.completions.create({ model, messages }).withResponse();
told.whole = {
  text: data.choices[0].message.content,
  tokens: data.usage.prompt_tokens,
  served: response.headers.get("x-turnout-model"),
};

const stream = await client.chat.completions.create({
  model, messages, stream: true, stream_options: { include_usage: true },
});
let text = "", usage = null;
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  usage = chunk.usage ?? usage;
}
told.stream = { text, tokens: usage.prompt_tokens };

const Joke = z.object({ setup: z.string(), punchline: z.string() });
const parsed = await client.chat.completions.parse({
  model, messages, response_format: zodResponseFormat(Joke, "joke"),
});
told.form = parsed.choices[0].message.parsed;

for (const streamed of [false, true]) {
  const seen = [];
  const multiply = zodFunction({
    name: "multiply", description: "Multiply.", parameters: z.object({ a: z.number(), b: z.number() }),
    function: ({ a, b }) => { seen.push([a, b]); return String(a * b); },
  });
  const runner = client.chat.completions.runTools({
    model, messages: [{ role: "user", content: "Please multiply 17" }], tools: [multiply], stream: streamed,
  });
  told[streamed ? "streamed_tools" : "tools"] = { seen, text: await runner.finalContent() };
}

const answered = await client.responses.create({ model, input: "Hello" });
told.responses = { text: answered.output_text, tokens: answered.usage.input_tokens };
const events = await client.responses.create({ model, input: "Hello", stream: true });
told.responses_stream = "";
for await (const event of events) {
  if (event.type === "response.output_text.delta") told.responses_stream += event.delta;
  told.last_event = event.type;
}

told.models = [];
for await (const one of client.models.list()) told.models.push(one.id);
try {
  await client.chat.completions.create({ model: "none-such", messages });
} catch (error) {
  told.error = { kind: error.constructor.name, status: error.status, code: error.code, param: error.param };
}
console.log(JSON.stringify(told));
