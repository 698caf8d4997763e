// A client of both services with google.golang.org/grpc; see ../README.md for what it does and which variables it reads.
package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log"
	"os"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	audit "onrecord.dev/protos/onrecord/audit/v1"
	common "onrecord.dev/protos/onrecord/common/v1"
	gateway "onrecord.dev/protos/onrecord/gateway/v1"
)

const timeout = time.Minute

// rowVersion is that of the rows that this program was written for; protos/README.md lists them.
const rowVersion = 1

// connect speaks TLS where a CA is given, plain text else, and tries again what may be tried again.
func connect(address string) *grpc.ClientConn {
	security := grpc.WithInsecure()
	if ca := os.Getenv("ONRECORD_CA"); ca != "" {
		trusted, err := credentials.NewClientTLSFromFile(ca, "")
		check(err)
		security = grpc.WithTransportCredentials(trusted)
	}
	retries, err := os.ReadFile("../../protos/onrecord/service_config.json")
	check(err)
	connection, err := grpc.Dial(address, security, grpc.WithDefaultServiceConfig(string(retries)))
	check(err)
	return connection
}

// withToken makes calls say who calls.
func withToken(ctx context.Context, variable string) context.Context {
	path := os.Getenv(variable)
	if path == "" {
		return ctx
	}
	token, err := os.ReadFile(path)
	check(err)
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+strings.TrimSpace(string(token)))
}

// approve lets a call run that waits for an answer. The digest goes back with it, so that what was approved is what runs.
func approve(ctx context.Context, client gateway.ApprovalServiceClient, call *gateway.ToolCallStarted) {
	answer := &gateway.AnswerToolCallRequest{
		ToolCallId: call.GetToolCallId(),
		Verdict:    common.Verdict_VERDICT_ALLOWED,
		ArgsDigest: call.GetArgsDigest(),
	}
	_, err := client.AnswerToolCall(withToken(ctx, "ONRECORD_GATEWAY_TOKEN"), answer)
	check(err)
	fmt.Printf("approved %s\n", call.GetToolName())
}

// runTurn prints a turn as it goes, approves what waits for an answer, and returns its session.
func runTurn(ctx context.Context, channel *grpc.ClientConn) string {
	client := gateway.NewGatewayServiceClient(channel)
	settings := &gateway.SessionSettings{Labels: map[string]string{"user": "go", "approvals": "asked"}}
	request := &gateway.RunTurnRequest{
		RequestId:        newID(),
		Input:            "What is in this folder?",
		Session:          &gateway.RunTurnRequest_NewSession{NewSession: settings},
		KeepOnDisconnect: true,
	}
	own, leave := context.WithCancel(withToken(ctx, "ONRECORD_GATEWAY_TOKEN"))
	defer leave()
	var events interface {
		Recv() (*gateway.TurnEvent, error)
	}
	events, err := client.RunTurn(own, request)
	check(err)
	sessionID, attach := "", &gateway.AttachTurnRequest{}
	for {
		event, err := events.Recv()
		if err == io.EOF {
			return sessionID
		}
		check(err)
		if event.GetHeartbeat() == nil {
			attach.AfterSequence = event.GetSequence()
		}
		switch {
		case event.GetTurnAccepted() != nil:
			sessionID, attach.TurnId = event.GetTurnAccepted().GetSessionId(), event.GetTurnAccepted().GetTurnId()
		case event.GetTurnStarted() != nil:
			fmt.Printf("turn started on %s\n", event.GetTurnStarted().GetEngine())
		case event.GetTextDelta() != nil:
			fmt.Print(event.GetTextDelta().GetText())
		case event.GetToolCallStarted().GetPending() != nil:
			approve(ctx, gateway.NewApprovalServiceClient(channel), event.GetToolCallStarted())
		case event.GetToolCallFinished() != nil:
			call := event.GetToolCallFinished()
			fmt.Printf("tool call %s: %s\n", call.GetToolName(), call.GetOutcome())
			if own.Err() == nil {
				leave() // as if the stream broke: AttachTurn goes on with it
				events, err = client.AttachTurn(withToken(ctx, "ONRECORD_GATEWAY_TOKEN"), attach)
				check(err)
			}
		case event.GetTurnFinished() != nil:
			fmt.Printf("\nturn finished: %s\n", event.GetTurnFinished().GetStopReason())
			if failure := event.GetTurnFinished().GetError(); failure != nil {
				log.Fatalf("turn failed: %s", failure.GetMessage())
			}
		}
	}
}

// newID is an id that nobody else has.
func newID() string {
	id := make([]byte, 16)
	_, err := rand.Read(id)
	check(err)
	return fmt.Sprintf("%x", id)
}

// newRow is a tool call of our own. The arguments are redacted by who sends them: the ledger stores what comes.
func newRow(sessionID, toolName string) *audit.AuditRow {
	return &audit.AuditRow{
		Id:          newID(),
		SessionId:   sessionID,
		Engine:      "go-client",
		ToolName:    toolName,
		ArgsSummary: "step=1",
		DurationMs:  12,
		CreatedAtMs: time.Now().UnixNano() / int64(time.Millisecond),
		Outcome:     common.Outcome_OUTCOME_SUCCEEDED,
	}
}

// record sends two batches and the first of them again. A batch is safe once its response has come.
func record(ctx context.Context, client audit.AuditServiceClient, sessionID string) {
	stream, err := client.Record(withToken(ctx, "ONRECORD_AUDIT_TOKEN"))
	check(err)
	batches := make([]*audit.RecordRequest, 2)
	for i := range batches {
		batches[i] = &audit.RecordRequest{
			Range: &audit.SequenceRange{
				ProducerId: os.Getenv("ONRECORD_PRODUCER"),
				First:      int64(i + 1),
				Last:       int64(i + 1),
			},
			RowVersion: rowVersion,
			ToolCalls:  []*audit.AuditRow{newRow(sessionID, "measure"), newRow(sessionID, "report")},
		}
	}
	for _, batch := range append(batches, batches[0]) {
		check(stream.Send(batch))
	}
	check(stream.CloseSend())
	for {
		response, err := stream.Recv()
		if err == io.EOF {
			return
		}
		check(err)
		fmt.Printf("batch %d: %d stored, %d there already\n", response.GetRange().GetLast(), response.GetStored(), response.GetDuplicates())
		for _, rejection := range response.GetRejections() {
			log.Fatalf("rejected for good: %s", rejection.GetMessage())
		}
	}
}

// query lists the session's tool calls page by page, what each tool took, and the model requests that failed.
func query(ctx context.Context, client audit.QuestionServiceClient, sessionID string) {
	ctx = withToken(ctx, "ONRECORD_AUDIT_TOKEN")
	session := &audit.ToolCallFilter{SessionId: sessionID}
	request := &audit.ListToolCallsRequest{Filter: session, PageSize: 2}
	listed, callers := 0, map[string]bool{}
	for {
		page, err := client.ListToolCalls(ctx, request)
		check(err)
		listed += len(page.GetToolCalls())
		for _, record := range page.GetToolCalls() {
			callers[record.GetReceipt().GetRecordedBy()] = true
		}
		request.PageToken = page.GetNextPageToken()
		if request.PageToken == "" {
			break
		}
	}
	fmt.Printf("ledger: %d calls\n", listed)
	for caller := range callers { // sums are of what one caller recorded: two may use one id for a session
		caller := caller
		ofCaller := &audit.ToolCallFilter{SessionId: sessionID, RecordedBy: &caller}
		usage, err := client.SummarizeUsage(ctx, &audit.SummarizeUsageRequest{Filter: ofCaller, GroupBy: []string{"tool"}})
		check(err)
		for _, group := range usage.GetGroups() {
			name := group.GetValues()[0]
			if name == "" {
				name = "the model"
			}
			fmt.Printf("%s used: %s: %d calls, %d tokens read\n", caller, name, group.GetToolCalls(), group.GetUsage().GetInputTokens())
		}
	}
	failures := &audit.ModelRequestFilter{SessionId: sessionID, HasError: new(bool)}
	*failures.HasError = true
	failed, err := client.ListModelRequests(ctx, &audit.ListModelRequestsRequest{Filter: failures})
	check(err)
	fmt.Printf("model requests that failed: %d\n", len(failed.GetModelRequests()))
}

// beRefused asks for what is not there, and tells why it is refused by the reason of the error: its message is for people.
func beRefused(ctx context.Context, client audit.QuestionServiceClient) {
	request := &audit.GetSessionRecordRequest{Session: &audit.RowKey{Id: newID()}}
	_, err := client.GetSessionRecord(withToken(ctx, "ONRECORD_AUDIT_TOKEN"), request)
	if err == nil {
		log.Fatal("a session that nobody recorded was found")
	}
	if reasonOf(err) != common.ErrorReason_ERROR_REASON_NOT_FOUND {
		log.Fatal(err)
	}
	fmt.Printf("refused as it should be: %s\n", reasonOf(err))
}

// reasonOf is why a call was refused; unspecified where this program does not know the reason: then the status code says.
func reasonOf(err error) common.ErrorReason {
	for _, detail := range status.Convert(err).Details() {
		if info, is := detail.(*errdetails.ErrorInfo); is && info.GetDomain() == "onrecord.dev" {
			return common.ErrorReason(common.ErrorReason_value["ERROR_REASON_"+info.GetReason()])
		}
	}
	return common.ErrorReason_ERROR_REASON_UNSPECIFIED
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	log.SetFlags(0)
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	turns, ledger := connect(os.Getenv("ONRECORD_GATEWAY")), connect(os.Getenv("ONRECORD_AUDIT"))
	defer turns.Close()
	defer ledger.Close()

	sessionID := runTurn(ctx, turns)
	record(ctx, audit.NewAuditServiceClient(ledger), sessionID)
	questions := audit.NewQuestionServiceClient(ledger)
	query(ctx, questions, sessionID)
	beRefused(ctx, questions)
}
