// What Connect-ES makes of the protos, used once, so that the compiler sees it used.
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { GatewayService, StopReason } from "./es/onrecord/gateway/v1/gateway_pb.js";

export async function run(baseUrl: string, input: string): Promise<StopReason | undefined> {
  const client = createClient(GatewayService, createGrpcTransport({ baseUrl }));
  for await (const event of client.runTurn({ input, requestId: "1" })) {
    if (event.event.case === "turnFinished") return event.event.value.stopReason;
  }
  return undefined;
}
