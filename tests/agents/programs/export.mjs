// OpenTelemetry's SDK of JavaScript with its default settings: one call, by whichever exporter the environment names.
import { createRequire } from "node:module";

const [modules, session] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { NodeSDK } = require("@opentelemetry/sdk-node");
const { trace } = require("@opentelemetry/api");

const sdk = new NodeSDK();
sdk.start();
const attributes = {
  "gen_ai.operation.name": "execute_tool",
  "gen_ai.tool.name": "search",
  "gen_ai.tool.call.id": "call_0",
  "gen_ai.conversation.id": session,
};
trace.getTracer("an-agent").startSpan("execute_tool search", { attributes }).end();
await sdk.shutdown();
