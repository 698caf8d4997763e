// A client of both services with @grpc/grpc-js; see ../README.md for what it does and which variables it reads.
"use strict";

const { randomUUID } = require("node:crypto");
const { once } = require("node:events");
const { readFileSync } = require("node:fs");
const { join } = require("node:path");
const { promisify } = require("node:util");

const grpc = require("@grpc/grpc-js");
const protoLoader = require("@grpc/proto-loader");

const { env } = process;
const protos = join(__dirname, "../../protos");
const definition = protoLoader.loadSync(
  [
    "google/rpc/error_details.proto",
    "google/rpc/status.proto",
    "onrecord/audit/v1/audit.proto",
    "onrecord/audit/v1/questions.proto",
    "onrecord/common/v1/common.proto",
    "onrecord/gateway/v1/approvals.proto",
    "onrecord/gateway/v1/gateway.proto",
  ],
  // 64-bit integers as strings, since a JavaScript number holds 53 bits.
  { includeDirs: [protos], keepCase: true, longs: String, enums: String, oneofs: true },
);
const { onrecord } = grpc.loadPackageDefinition(definition);

// TLS where a CA is given, plain text else.
const credentials = env.ONRECORD_CA
  ? grpc.credentials.createSsl(readFileSync(env.ONRECORD_CA))
  : grpc.credentials.createInsecure();
// Tries again what may be tried again.
const retries = { "grpc.service_config": readFileSync(join(protos, "onrecord/service_config.json"), "utf8") };
const gateway = new onrecord.gateway.v1.GatewayService(env.ONRECORD_GATEWAY, credentials, retries);
const approvals = new onrecord.gateway.v1.ApprovalService(env.ONRECORD_GATEWAY, credentials, retries);
const audit = new onrecord.audit.v1.AuditService(env.ONRECORD_AUDIT, credentials, retries);
const questions = new onrecord.audit.v1.QuestionService(env.ONRECORD_AUDIT, credentials, retries);

// The version of the rows that this program was written for; protos/README.md lists them.
const ROW_VERSION = 1;

// What each call carries to say who calls.
function token(path) {
  const metadata = new grpc.Metadata();
  if (path) metadata.set("authorization", `Bearer ${readFileSync(path, "utf8").trim()}`);
  return metadata;
}

const options = () => ({ deadline: Date.now() + 60_000 });

// A turn's events. After the first tool call it leaves the stream, as if it broke, and goes on with AttachTurn.
async function* eventsOf(request) {
  const attach = { turn_id: "", after_sequence: "0" };
  const stream = gateway.RunTurn(request, token(env.ONRECORD_GATEWAY_TOKEN), options());
  for await (const event of stream) {
    if (event.turn_accepted) attach.turn_id = event.turn_accepted.turn_id;
    if (event.event !== "heartbeat") attach.after_sequence = event.sequence;
    yield event;
    if (event.event === "tool_call_finished") break;
  }
  stream.cancel(); // leaving the loop alone leaves the call open until its deadline
  yield* gateway.AttachTurn(attach, token(env.ONRECORD_GATEWAY_TOKEN), options());
}

// Lets a call run that waits for an answer. The digest goes back with it, so that what was approved is what runs.
async function approve(call) {
  const answer = { tool_call_id: call.tool_call_id, verdict: "VERDICT_ALLOWED", args_digest: call.args_digest };
  await promisify(approvals.AnswerToolCall.bind(approvals))(answer, token(env.ONRECORD_GATEWAY_TOKEN), options());
  console.log(`approved ${call.tool_name}`);
}

// Prints a turn as it goes, approves what waits for an answer, and returns its session.
async function runTurn() {
  const request = {
    request_id: randomUUID(),
    input: "What is in this folder?",
    new_session: { labels: { user: "node", approvals: "asked" } },
    keep_on_disconnect: true,
  };
  let sessionId = "";
  for await (const event of eventsOf(request)) {
    const value = event[event.event];
    switch (event.event) {
      case "turn_accepted":
        sessionId = value.session_id;
        break;
      case "turn_started":
        console.log(`turn started on ${value.engine}`);
        break;
      case "text_delta":
        process.stdout.write(value.text);
        break;
      case "tool_call_started":
        if (value.pending) await approve(value);
        break;
      case "tool_call_finished":
        console.log(`tool call ${value.tool_name}: ${value.outcome}`);
        break;
      case "turn_finished":
        console.log(`\nturn finished: ${value.stop_reason}`);
        if (value.error) throw new Error(`turn failed: ${value.error.message}`);
        break;
    }
  }
  return sessionId;
}

// A tool call of our own. The arguments are redacted by who sends them: the ledger stores what comes.
function row(sessionId, toolName) {
  return {
    id: randomUUID(),
    session_id: sessionId,
    engine: "node-client",
    tool_name: toolName,
    args_summary: "step=1",
    duration_ms: 12,
    created_at_ms: Date.now(),
    outcome: "OUTCOME_SUCCEEDED",
  };
}

// Sends two batches and the first of them again. A batch is safe once its response has come.
async function record(sessionId) {
  const batches = [1, 2].map((number) => ({
    range: { producer_id: env.ONRECORD_PRODUCER, first: number, last: number },
    row_version: ROW_VERSION,
    tool_calls: [row(sessionId, "measure"), row(sessionId, "report")],
  }));
  const call = audit.Record(token(env.ONRECORD_AUDIT_TOKEN), options());
  for (const batch of [...batches, batches[0]]) {
    if (!call.write(batch)) await once(call, "drain");
  }
  call.end();
  for await (const response of call) {
    console.log(`batch ${response.range.last}: ${response.stored ?? 0} stored, ${response.duplicates ?? 0} there already`);
    for (const rejection of response.rejections ?? []) throw new Error(`rejected for good: ${rejection.message}`);
  }
}

// Lists the session's tool calls page by page, what each tool took, and the model requests that failed.
async function query(sessionId) {
  const listToolCalls = promisify(questions.ListToolCalls.bind(questions));
  let listed = 0;
  const callers = new Set();
  let pageToken = "";
  do {
    const request = { filter: { session_id: sessionId }, page_size: 2, page_token: pageToken };
    const page = await listToolCalls(request, token(env.ONRECORD_AUDIT_TOKEN), options());
    listed += page.tool_calls?.length ?? 0;
    for (const { receipt } of page.tool_calls ?? []) callers.add(receipt.recorded_by ?? "");
    pageToken = page.next_page_token;
  } while (pageToken);
  console.log(`ledger: ${listed} calls`);
  const summarizeUsage = promisify(questions.SummarizeUsage.bind(questions));
  // Sums are of what one caller recorded: two may use one id for a session.
  for (const caller of callers) {
    const request = { filter: { session_id: sessionId, recorded_by: caller }, group_by: ["tool"] };
    const usage = await summarizeUsage(request, token(env.ONRECORD_AUDIT_TOKEN), options());
    for (const { values, tool_calls: calls, usage: models } of usage.groups) {
      const name = values[0] || "the model";
      console.log(`${caller} used: ${name}: ${calls ?? 0} calls, ${models?.input_tokens ?? 0} tokens read`);
    }
  }
  const listModelRequests = promisify(questions.ListModelRequests.bind(questions));
  const failures = { filter: { session_id: sessionId, has_error: true } };
  const failed = await listModelRequests(failures, token(env.ONRECORD_AUDIT_TOKEN), options());
  console.log(`model requests that failed: ${failed.model_requests?.length ?? 0}`);
}

// Why a call was refused: an ErrorReason's name; unspecified where this program does not know it: then the status code says.
function reasonOf(refusal) {
  const known = definition["onrecord.common.v1.ErrorReason"].type.value.map((value) => value.name);
  const [packed] = refusal.metadata?.get("grpc-status-details-bin") ?? [];
  const status = packed ? definition["google.rpc.Status"].deserialize(packed) : {};
  for (const detail of status.details ?? []) {
    if (detail.type_url !== "type.googleapis.com/google.rpc.ErrorInfo") continue;
    const info = definition["google.rpc.ErrorInfo"].deserialize(detail.value);
    const reason = `ERROR_REASON_${info.reason}`;
    if (info.domain === "onrecord.dev" && known.includes(reason)) return reason;
  }
  return "ERROR_REASON_UNSPECIFIED";
}

// Asks for what is not there, and tells why it is refused by the reason of the error: its message is for people.
async function beRefused() {
  const getSessionRecord = promisify(questions.GetSessionRecord.bind(questions));
  try {
    await getSessionRecord({ session: { id: randomUUID() } }, token(env.ONRECORD_AUDIT_TOKEN), options());
  } catch (refusal) {
    if (reasonOf(refusal) !== "ERROR_REASON_NOT_FOUND") throw refusal;
    console.log(`refused as it should be: ${reasonOf(refusal)}`);
    return;
  }
  throw new Error("a session that nobody recorded was found");
}

async function main() {
  const sessionId = await runTurn();
  await record(sessionId);
  await query(sessionId);
  await beRefused();
  gateway.close();
  approvals.close();
  audit.close();
  questions.close();
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
