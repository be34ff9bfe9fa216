// Anthropic's client: whole and streamed answers, tools that it runs itself, lengths, errors.
import Anthropic from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { z } from "zod";

const [baseURL, model] = process.argv.slice(2);
const client = new Anthropic({ baseURL: baseURL.replace(/\/v1$/, ""), apiKey: "none", maxRetries: 0, timeout: 20_000 });
const said = { model, max_tokens: 200, messages: [{ role: "user", content: "Hello" }] };
const told = {};

const whole = await client.messages.create(said);
told.whole = { text: whole.content[0].text, stop: whole.stop_reason };

let text = "";
const stream = client.messages.stream(said).on("text", (piece) => { text += piece; });
const final = await stream.finalMessage();
told.stream = { text, same: final.content[0].text === text, tokens: final.usage.output_tokens };

const seen = [];
const multiply = betaZodTool({
  name: "multiply", description: "Multiply.", inputSchema: z.object({ a: z.number(), b: z.number() }),
  run: ({ a, b }) => { seen.push([a, b]); return String(a * b); },
});
const last = await client.beta.messages.toolRunner({
  ...said, messages: [{ role: "user", content: "Please multiply 17" }], tools: [multiply],
});
told.tools = { seen, text: last.content[0].text };

told.length = (await client.messages.countTokens({ model, messages: said.messages })).input_tokens;
try {
  await client.messages.create({ ...said, model: "none-such" });
} catch (error) {
  told.error = { kind: error.constructor.name, status: error.status, type: error.error?.error?.type };
}
console.log(JSON.stringify(told));
