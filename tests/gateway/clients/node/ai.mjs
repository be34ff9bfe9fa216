// Vercel's AI SDK over each of its providers: texts, streams, objects, tools in several steps.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, stepCountIs, streamObject, streamText, tool } from "ai";
import { z } from "zod";

const [baseURL, name] = process.argv.slice(2);
const openai = createOpenAI({ baseURL, apiKey: "none" });
const models = {
  chat: openai.chat(name),
  responses: openai.responses(name),
  compatible: createOpenAICompatible({ name: "turnout", baseURL, apiKey: "none", includeUsage: true, supportsStructuredOutputs: true })(name),
  anthropic: createAnthropic({ baseURL, apiKey: "none" })(name),
};
const common = { maxRetries: 0, maxOutputTokens: 300, providerOptions: { openai: { store: false } } };
const schema = z.object({ setup: z.string(), punchline: z.string() });
const told = {};

for (const [kind, model] of Object.entries(models)) {
  const found = (told[kind] = {});
  const whole = await generateText({ ...common, model, prompt: "Hello" });
  found.whole = { text: whole.text, tokens: whole.usage.outputTokens };
  const stream = streamText({ ...common, model, prompt: "Hello", onError: ({ error }) => { throw error; } });
  let text = "";
  for await (const piece of stream.textStream) text += piece;
  found.stream = { text, tokens: (await stream.usage).outputTokens };
  found.object = (await generateObject({ ...common, model, schema, prompt: "Hello" })).object;
  const parts = streamObject({ ...common, model, schema, prompt: "Hello" });
  for await (const part of parts.partialObjectStream) found.streamed_object = part;
  for (const run of [generateText, streamText]) {
    const seen = [];
    const multiply = tool({
      description: "Multiply.", inputSchema: z.object({ a: z.number(), b: z.number() }),
      execute: async ({ a, b }) => { seen.push([a, b]); return a * b; },
    });
    const last = await run({
      ...common, model, prompt: "Please multiply 17", tools: { multiply }, stopWhen: stepCountIs(3),
    });
    found[run.name] = { seen, text: await last.text };
  }
}
console.log(JSON.stringify(told));
