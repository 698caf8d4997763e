// A client of both services with io.grpc; see ../README.md for what it does and which variables it reads.

import com.google.gson.Gson;
import com.google.rpc.ErrorInfo;
import dev.onrecord.audit.v1.AuditRow;
import dev.onrecord.audit.v1.AuditServiceGrpc;
import dev.onrecord.audit.v1.GetSessionRecordRequest;
import dev.onrecord.audit.v1.ListModelRequestsRequest;
import dev.onrecord.audit.v1.ListToolCallsRequest;
import dev.onrecord.audit.v1.ModelRequestFilter;
import dev.onrecord.audit.v1.QuestionServiceGrpc;
import dev.onrecord.audit.v1.RecordRequest;
import dev.onrecord.audit.v1.RecordResponse;
import dev.onrecord.audit.v1.RowKey;
import dev.onrecord.audit.v1.SequenceRange;
import dev.onrecord.audit.v1.SummarizeUsageRequest;
import dev.onrecord.audit.v1.ToolCallFilter;
import dev.onrecord.audit.v1.UsageGroup;
import dev.onrecord.common.v1.ErrorReason;
import dev.onrecord.common.v1.Outcome;
import dev.onrecord.common.v1.Verdict;
import dev.onrecord.gateway.v1.AnswerToolCallRequest;
import dev.onrecord.gateway.v1.ApprovalServiceGrpc;
import dev.onrecord.gateway.v1.AttachTurnRequest;
import dev.onrecord.gateway.v1.GatewayServiceGrpc;
import dev.onrecord.gateway.v1.RunTurnRequest;
import dev.onrecord.gateway.v1.SessionSettings;
import dev.onrecord.gateway.v1.TurnEvent;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.NettyChannelBuilder;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import java.io.File;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

public final class Client {
  private static final long TIMEOUT_SECONDS = 60;

  /** Of the rows that this program was written for; protos/README.md lists them. */
  private static final int ROW_VERSION = 1;

  public static void main(String[] arguments) throws Exception {
    ManagedChannel turns = connect(System.getenv("ONRECORD_GATEWAY"));
    ManagedChannel ledger = connect(System.getenv("ONRECORD_AUDIT"));
    try {
      String sessionId = runTurn(turns);
      record(ledger, sessionId);
      query(ledger, sessionId);
      beRefused(ledger);
    } finally {
      turns.shutdownNow();
      ledger.shutdownNow();
    }
  }

  /** Speaks TLS where a CA is given, plain text else, and tries again what may be tried again. */
  private static ManagedChannel connect(String address) throws Exception {
    NettyChannelBuilder channel = NettyChannelBuilder.forTarget(address);
    String ca = System.getenv("ONRECORD_CA");
    if (ca == null) {
      channel.usePlaintext();
    } else {
      channel.sslContext(GrpcSslContexts.forClient().trustManager(new File(ca)).build());
    }
    try (Reader retries = Files.newBufferedReader(Path.of("../../protos/onrecord/service_config.json"))) {
      @SuppressWarnings("unchecked")
      Map<String, ?> config = new Gson().fromJson(retries, Map.class);
      return channel.defaultServiceConfig(config).enableRetry().build();
    }
  }

  /** Has a stub's calls say who calls, and end in time. */
  private static <S extends AbstractStub<S>> S as(S stub, String variable) throws Exception {
    S bounded = stub.withDeadlineAfter(TIMEOUT_SECONDS, TimeUnit.SECONDS);
    String path = System.getenv(variable);
    if (path == null) {
      return bounded;
    }
    Metadata headers = new Metadata();
    Metadata.Key<String> name = Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
    headers.put(name, "Bearer " + Files.readString(Path.of(path)).strip());
    return bounded.withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers));
  }

  /** Prints a turn as it goes, approves what waits for an answer, and returns its session. */
  private static String runTurn(ManagedChannel channel) throws Exception {
    GatewayServiceGrpc.GatewayServiceBlockingStub gateway =
        as(GatewayServiceGrpc.newBlockingStub(channel), "ONRECORD_GATEWAY_TOKEN");
    RunTurnRequest request =
        RunTurnRequest.newBuilder()
            .setRequestId(UUID.randomUUID().toString())
            .setInput("What is in this folder?")
            .setNewSession(SessionSettings.newBuilder().putLabels("user", "java").putLabels("approvals", "asked"))
            .setKeepOnDisconnect(true)
            .build();
    AttachTurnRequest.Builder attach = AttachTurnRequest.newBuilder();
    Context.CancellableContext stream = Context.current().withCancellation();
    Iterator<TurnEvent> events = stream.call(() -> gateway.runTurn(request));
    String sessionId = "";
    boolean left = false;
    while (events.hasNext()) {
      TurnEvent event = events.next();
      if (!event.hasHeartbeat()) {
        attach.setAfterSequence(event.getSequence());
      }
      switch (event.getEventCase()) {
        case TURN_ACCEPTED:
          sessionId = event.getTurnAccepted().getSessionId();
          attach.setTurnId(event.getTurnAccepted().getTurnId());
          break;
        case TURN_STARTED:
          System.out.println("turn started on " + event.getTurnStarted().getEngine());
          break;
        case TEXT_DELTA:
          System.out.print(event.getTextDelta().getText());
          break;
        case TOOL_CALL_STARTED:
          if (event.getToolCallStarted().hasPending()) {
            // The digest goes back with the answer, so that what was approved is what runs.
            as(ApprovalServiceGrpc.newBlockingStub(channel), "ONRECORD_GATEWAY_TOKEN")
                .answerToolCall(
                    AnswerToolCallRequest.newBuilder()
                        .setToolCallId(event.getToolCallStarted().getToolCallId())
                        .setVerdict(Verdict.VERDICT_ALLOWED)
                        .setArgsDigest(event.getToolCallStarted().getArgsDigest())
                        .build());
            System.out.println("approved " + event.getToolCallStarted().getToolName());
          }
          break;
        case TOOL_CALL_FINISHED:
          System.out.printf(
              "tool call %s: %s%n",
              event.getToolCallFinished().getToolName(), event.getToolCallFinished().getOutcome());
          if (!left) {
            left = true;
            stream.cancel(null); // as if the stream broke: AttachTurn goes on with it
            events = gateway.attachTurn(attach.build());
          }
          break;
        case TURN_FINISHED:
          System.out.println("\nturn finished: " + event.getTurnFinished().getStopReason());
          if (event.getTurnFinished().hasError()) {
            throw new IllegalStateException("turn failed: " + event.getTurnFinished().getError().getMessage());
          }
          break;
        default: // an event that this program does not know is nothing to it
          break;
      }
    }
    return sessionId;
  }

  /** A tool call of our own. The arguments are redacted by who sends them: the ledger stores what comes. */
  private static AuditRow newRow(String sessionId, String toolName) {
    return AuditRow.newBuilder()
        .setId(UUID.randomUUID().toString())
        .setSessionId(sessionId)
        .setEngine("java-client")
        .setToolName(toolName)
        .setArgsSummary("step=1")
        .setDurationMs(12)
        .setCreatedAtMs(System.currentTimeMillis())
        .setOutcome(Outcome.OUTCOME_SUCCEEDED)
        .build();
  }

  private static RecordRequest newBatch(String sessionId, long number) {
    return RecordRequest.newBuilder()
        .setRange(
            SequenceRange.newBuilder()
                .setProducerId(System.getenv("ONRECORD_PRODUCER"))
                .setFirst(number)
                .setLast(number))
        .setRowVersion(ROW_VERSION)
        .addToolCalls(newRow(sessionId, "measure"))
        .addToolCalls(newRow(sessionId, "report"))
        .build();
  }

  /** Sends two batches and the first of them again. A batch is safe once its response has come. */
  private static void record(ManagedChannel channel, String sessionId) throws Exception {
    Acks acks = new Acks();
    StreamObserver<RecordRequest> batches =
        as(AuditServiceGrpc.newStub(channel), "ONRECORD_AUDIT_TOKEN").record(acks);
    RecordRequest first = newBatch(sessionId, 1);
    for (RecordRequest batch : List.of(first, newBatch(sessionId, 2), first)) {
      batches.onNext(batch);
    }
    batches.onCompleted();
    acks.await();
  }

  /** Lists the session's tool calls page by page, what each tool took, and the model requests that failed. */
  private static void query(ManagedChannel channel, String sessionId) throws Exception {
    QuestionServiceGrpc.QuestionServiceBlockingStub questions =
        as(QuestionServiceGrpc.newBlockingStub(channel), "ONRECORD_AUDIT_TOKEN");
    ListToolCallsRequest.Builder request =
        ListToolCallsRequest.newBuilder()
            .setFilter(ToolCallFilter.newBuilder().setSessionId(sessionId))
            .setPageSize(2);
    int listed = 0;
    Set<String> callers = new TreeSet<>();
    do {
      var page = questions.listToolCalls(request.build());
      listed += page.getToolCallsCount();
      page.getToolCallsList().forEach(record -> callers.add(record.getReceipt().getRecordedBy()));
      request.setPageToken(page.getNextPageToken());
    } while (!request.getPageToken().isEmpty());
    System.out.println("ledger: " + listed + " calls");
    for (String caller : callers) { // sums are of what one caller recorded: two may use one id for a session
      ToolCallFilter ofCaller =
          ToolCallFilter.newBuilder().setSessionId(sessionId).setRecordedBy(caller).build();
      var usage =
          questions.summarizeUsage(
              SummarizeUsageRequest.newBuilder().setFilter(ofCaller).addGroupBy("tool").build());
      for (UsageGroup group : usage.getGroupsList()) {
        String name = group.getValues(0).isEmpty() ? "the model" : group.getValues(0);
        System.out.printf(
            "%s used: %s: %d calls, %d tokens read%n",
            caller, name, group.getToolCalls(), group.getUsage().getInputTokens());
      }
    }
    var failed =
        questions.listModelRequests(
            ListModelRequestsRequest.newBuilder()
                .setFilter(ModelRequestFilter.newBuilder().setSessionId(sessionId).setHasError(true))
                .build());
    System.out.println("model requests that failed: " + failed.getModelRequestsCount());
  }

  /** Asks for what is not there, and tells why by the reason of the error: its message is for people. */
  private static void beRefused(ManagedChannel channel) throws Exception {
    try {
      as(QuestionServiceGrpc.newBlockingStub(channel), "ONRECORD_AUDIT_TOKEN")
          .getSessionRecord(
              GetSessionRecordRequest.newBuilder()
                  .setSession(RowKey.newBuilder().setId(UUID.randomUUID().toString()))
                  .build());
    } catch (StatusRuntimeException refusal) {
      if (reasonOf(refusal) != ErrorReason.ERROR_REASON_NOT_FOUND) {
        throw refusal;
      }
      System.out.println("refused as it should be: " + reasonOf(refusal));
      return;
    }
    throw new IllegalStateException("a session that nobody recorded was found");
  }

  /** Why a call was refused; unspecified where this program does not know the reason: then the status code says. */
  private static ErrorReason reasonOf(StatusRuntimeException refusal) throws Exception {
    com.google.rpc.Status status = StatusProto.fromThrowable(refusal);
    for (var detail : status == null ? List.<com.google.protobuf.Any>of() : status.getDetailsList()) {
      if (detail.is(ErrorInfo.class)) {
        ErrorInfo info = detail.unpack(ErrorInfo.class);
        for (ErrorReason reason : ErrorReason.values()) {
          if (info.getDomain().equals("onrecord.dev") && reason.name().equals("ERROR_REASON_" + info.getReason())) {
            return reason;
          }
        }
      }
    }
    return ErrorReason.ERROR_REASON_UNSPECIFIED;
  }

  /** The answers to batches. */
  private static final class Acks implements StreamObserver<RecordResponse> {
    private final CountDownLatch ended = new CountDownLatch(1);
    private Throwable failure;

    @Override
    public void onNext(RecordResponse response) {
      System.out.printf(
          "batch %d: %d stored, %d there already%n",
          response.getRange().getLast(), response.getStored(), response.getDuplicates());
      if (response.getRejectionsCount() > 0) {
        failure = new IllegalStateException("rejected for good: " + response.getRejections(0).getMessage());
      }
    }

    @Override
    public void onError(Throwable error) {
      failure = error;
      ended.countDown();
    }

    @Override
    public void onCompleted() {
      ended.countDown();
    }

    /** Returns when the stream has ended well. */
    void await() throws Exception {
      if (!ended.await(TIMEOUT_SECONDS, TimeUnit.SECONDS)) {
        throw new IllegalStateException("the ledger did not answer in time");
      }
      if (failure != null) {
        throw new IllegalStateException(failure);
      }
    }
  }
}
